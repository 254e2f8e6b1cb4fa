//! The small parts alone, in memory: `cargo bench -p cairn-tests --bench parts`.
//!
//! All of it works on one workflow of ten steps that do nothing and 300 bytes of output each, 22 entries, as `load` runs it.
//! What a part takes is shown by the entry.

use std::{hint::black_box, io, sync::Arc, time::Duration};

use cairn_engine::{
    Amounts, CommitNumber, Engine, EngineOptions, Entry, Hash, Json, Limits, NewSubmission, OnFailure, Projection,
    Registry, SystemChance, SystemClock, Timestamp, WorkflowState, catch_up, decide, fold,
    store::{Append, DurableOptions, DurableStore, LogReader, MemoryStore, Store, verify},
};
use cairn_steps::{
    elastic::Elastic,
    render::{Marks, Through, render},
    report::reports,
    request::Request,
};
use cairn_tests::no_op;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Runs the workflow on `store`, and gives its entries.
async fn history(store: Arc<dyn Store>) -> Vec<Entry> {
    let options = EngineOptions {
        store,
        definitions: Registry::new([no_op::definition(false)]),
        clock: Arc::new(SystemClock),
        chance: Arc::new(SystemChance),
        limits: Limits::default(),
    };
    let engine = Engine::open(options).await.expect("it opens");
    let submission = NewSubmission {
        definition: no_op::NAME.into(),
        tenant: "acme".into(),
        service: "search".into(),
        input: Json::parse(br#"{"user":"acme","service_name":"search"}"#).expect("it is JSON"),
        key: None,
        body_hash: Hash::default(),
        who: "bench".into(),
        holds: Amounts::new(),
        quota: Amounts::new(),
        on_failure: OnFailure::Rollback,
    };
    let workflow = engine.submit(submission).await.expect("it is accepted").id();
    engine.settled(workflow).await.expect("it ends");
    let entries = engine.entries(workflow).await.expect("it reads");
    engine.shutdown(Duration::ZERO).await.expect("it closes");
    entries
}

/// A view that keeps nothing.
struct Counted(u64);

impl Projection for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    fn cursor(&mut self, _: &dyn Store) -> io::Result<CommitNumber> {
        Ok(CommitNumber(0))
    }

    fn project(&mut self, _: &Entry, state: &WorkflowState) -> io::Result<()> {
        self.0 += state.sequence().0;
        Ok(())
    }

    fn show(&mut self, _: (CommitNumber, Hash), _: &dyn Store) -> io::Result<Option<Duration>> {
        Ok(None)
    }

    fn commit(&mut self, _: &dyn Store, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// The appends that the entries came in, for an empty store of its own.
fn appends(entries: &[Entry], store: &MemoryStore) -> Vec<Append> {
    let grouped = entries.chunk_by(|one, next| one.time == next.time);
    let append = |entries: &[Entry]| Append {
        workflow: entries[0].workflow,
        expected: cairn_engine::Sequence(entries[0].sequence.0 - 1),
        token: store.token(),
        facts: entries.iter().map(|entry| entry.fact.clone()).collect(),
        quota: Amounts::new(),
    };
    grouped.map(append).collect()
}

fn parts(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let memory = Arc::new(MemoryStore::new());
    let entries = runtime.block_on(history(Arc::clone(&memory) as Arc<dyn Store>));
    let state = fold(&entries[..entries.len() / 2]).expect("it folds").expect("it began");
    let dir = tempfile::tempdir().expect("a directory");
    {
        // A segment that is hardly longer than what is in it: it is read whole.
        let options = DurableOptions { segment_bytes: 8 << 10, ..DurableOptions::new(dir.path()) };
        let (store, _) = DurableStore::open(&options).expect("it opens");
        runtime.block_on(history(Arc::new(store)));
    }

    let mut by_entry = criterion.benchmark_group("by entry");
    by_entry.throughput(Throughput::Elements(entries.len() as u64));
    by_entry.bench_function("fold", |bench| bench.iter(|| fold(black_box(&entries))));
    // Checked, encoded, hashed and indexed, without a disk.
    by_entry.bench_function("append", |bench| {
        bench.iter_batched(
            || {
                let store = MemoryStore::new();
                let appends = appends(&entries, &store);
                (store, appends)
            },
            |(store, appends)| {
                for append in appends {
                    let answers = store.commit(vec![append], Timestamp::from_micros(1)).expect("it commits");
                    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
                }
                store
            },
            BatchSize::SmallInput,
        );
    });
    // Read from the log, decoded, hashed again, chained, folded.
    by_entry.bench_function("verify", |bench| {
        bench.iter(|| verify(LogReader::open(dir.path()).expect("it opens")).expect("it is good"));
    });
    by_entry.bench_function("project", |bench| {
        bench.iter(|| catch_up(memory.as_ref(), &mut Counted(0)).expect("it reads"));
    });
    by_entry.bench_function("report", |bench| bench.iter(|| reports(black_box(&entries))));
    by_entry.finish();

    criterion.bench_function("decide", |bench| bench.iter(|| decide(black_box(&state), Timestamp::from_micros(1))));
    let request = Request::parse(br#"{"user":"acme","service_name":"search","replicas":3,"gpu_count":1}"#);
    let request = request.expect("it is valid");
    let marks = Marks { workflow: state.id().to_string() };
    criterion.bench_function("render all objects of a cluster", |bench| {
        bench.iter(|| render(black_box(&request), &Elastic::default(), Through::RolloutCompleted, None, &marks));
    });
}

criterion_group!(benches, parts);
criterion_main!(benches);

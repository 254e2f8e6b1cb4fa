//! Fuzzing of whatever reads what others wrote: no input makes it panic, take a second or 64 MiB, and what it takes is
//! written back as it was.

mod mutate;

use std::{
    cell::Cell,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use cairn_engine::{
    Commit, CommitNumber, Hash, Json, Timestamp, WorkflowId,
    store::{DurableOptions, DurableStore, LogReader, verify},
};
use cairn_steps::{
    cluster::{Cluster, Made},
    names::{Namespace, Service, Tenant},
    quantity::Quantity,
    render::Kind,
    request::Request,
    settings::Settings,
};
use cairn_tests::{
    journal::{small, write},
    site::Numbers,
};
use http::Response;
use tower::service_fn;

use self::mutate::{corpus, fuzz};

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

#[test]
fn quantities() -> anyhow::Result<()> {
    fuzz("quantities", &corpus("quantities")?, 1_000_000, |_, input| {
        if let Ok(quantity) = text(input).parse::<Quantity>() {
            let again: Quantity = quantity.as_str().parse().expect("what it says is a quantity");
            assert_eq!((again.as_millis(), again.as_bytes()), (quantity.as_millis(), quantity.as_bytes()));
        }
    })
}

/// I24: what is taken for a name is one, and no namespace of ours is a reserved one.
#[test]
fn names() -> anyhow::Result<()> {
    fuzz("names", &corpus("names")?, 1_000_000, |_, input| {
        let text = text(input);
        let (user, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let (service, namespace) = rest.split_once('\n').unwrap_or((rest, ""));
        if let (Ok(user), Ok(service)) = (Tenant::parse(user), Service::parse(service)) {
            let parsed = [Namespace::default_for(&user, &service), Namespace::parse(namespace, &user, &service)];
            for found in parsed.into_iter().flatten() {
                assert!(found.as_str().len() <= 63 && !found.as_str().starts_with("kube-"), "{found:?}");
            }
        }
        let _ = Namespace::unpaired(&text);
    })
}

#[test]
fn requests() -> anyhow::Result<()> {
    fuzz("requests", &corpus("requests")?, 1_000_000, |_, input| {
        if let Ok(request) = Request::parse(input) {
            let again = Request::parse(&request.to_json()).expect("what is journaled is read again");
            assert_eq!(again.to_json(), request.to_json());
            let _ = (request.details(), request.holds());
        }
    })
}

/// The settings that GitLab serves.
#[test]
fn settings() -> anyhow::Result<()> {
    fuzz("settings", &corpus("settings")?, 1_000_000, |_, input| drop(Settings::parse(&text(input))))
}

/// Lines of an export, as `cairn-journal` reads them. I27: one that is taken is written as it was read, or refused.
#[test]
fn exports() -> anyhow::Result<()> {
    fuzz("exports", &corpus("exports")?, 1_000_000, |_, input| {
        let commits = input.split(|byte| *byte == b'\n').map_while(|line| serde_json::from_slice::<Commit>(line).ok());
        let commits: Vec<Commit> = commits.collect();
        for commit in &commits {
            let line = serde_json::to_vec(commit).expect("it was read");
            assert_eq!(serde_json::from_slice::<Commit>(&line).expect("it was written"), *commit);
        }
        let _ = verify(commits.into_iter().map(Ok));
    })
}

/// What a client hands back to go on from: ids of workflows and entries, times, heads.
#[test]
fn cursors() -> anyhow::Result<()> {
    fuzz("cursors", &corpus("cursors")?, 1_000_000, |_, input| {
        let text = text(input);
        if let Ok(id) = text.parse::<WorkflowId>() {
            assert_eq!(id.to_string().parse::<WorkflowId>(), Ok(id));
        }
        let _ = text.parse::<Timestamp>();
        let _ = Json::parse(input);
        let _ = serde_json::from_slice::<CommitNumber>(input);
        let _ = serde_json::from_value::<Hash>(serde_json::Value::String(text));
    })
}

/// Frames of the log whose checksum is right, with whatever in them: decoders of commits, appends and facts.
#[test]
fn frames() -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let (store, _) = DurableStore::open(&DurableOptions { segment_bytes: 16 * 1024, ..small(place.path()) })?;
    write(&store, &mut Numbers::of(1), 4, |_| Ok(()))?;
    drop(store);
    let header = fs::read(place.path().join("log/000001.log"))?[..72].to_vec();
    let log = fs::read(place.path().join("log/000001.log"))?;
    let (mut inputs, mut at) = (Vec::new(), header.len());
    while let Some(length) =
        log.get(at..).and_then(<[u8]>::first_chunk).map(|length| u32::from_le_bytes(*length) as usize)
        && length > 0
    {
        // As the first commit of its journal: its number follows the version. Behind a bad one nothing is decoded.
        inputs.push([&[log[at + 8], 1], &log[at + 10..at + 8 + length]].concat());
        at += length + 9;
    }
    anyhow::ensure!(inputs.len() > 8, "there is something to mutate");
    fuzz("frames", &inputs, 1_000_000, |place, input| {
        let length = u32::try_from(input.len()).expect("inputs are short").to_le_bytes();
        let sum = crc32c::crc32c_append(crc32c::crc32c(&length), input).to_le_bytes();
        let file = [header.as_slice(), &length, &sum, input, &[0xe5], &[0; 64]].concat();
        read_log(place, &file);
    })
}

fn read_log(place: &Path, file: &[u8]) {
    fs::create_dir_all(place.join("log")).expect("it can be made");
    fs::write(place.join("log/000001.log"), file).expect("it takes a write");
    if let Ok(reader) = LogReader::open(place) {
        let _ = verify(reader);
    }
}

/// A cluster that answers everything with the same.
struct Parrot {
    runtime: tokio::runtime::Runtime,
    cluster: Cluster,
    says: Arc<Mutex<Vec<u8>>>,
}

thread_local! {
    /// Kept from one input to the next: to make it takes longer than to ask it. One that a panic has met is not used again.
    static PARROT: Cell<Option<Parrot>> = const { Cell::new(None) };
}

impl Parrot {
    fn new() -> Self {
        let says = Arc::<Mutex<Vec<u8>>>::default();
        let heard = Arc::clone(&says);
        let service = service_fn(move |_: http::Request<kube::client::Body>| {
            let body = heard.lock().expect("nobody panics while it is held").clone();
            // Errors come with a body, too: which one it is, the body says.
            let status = if body.len() % 3 == 0 { 409 } else { 200 };
            let answer = Response::builder().status(status).header("content-type", "application/json");
            let answer = answer.body(kube::client::Body::from(body)).expect("a plain answer");
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let cluster = runtime.block_on(async { Cluster::new(kube::Client::new(service, "default")) });
        Self { runtime, cluster, says }
    }
}

/// Whatever a cluster answers: objects, lists and errors, read as steps and probes read them.
#[test]
fn kubernetes() -> anyhow::Result<()> {
    let made = |kind: &str| Made {
        kind: kind.to_owned(),
        name: "elasticsearch".to_owned(),
        namespace: Some("acme--search".to_owned()),
        uid: "u-1".to_owned(),
    };
    let (set, deployment) = (made("StatefulSet"), made("Deployment"));
    fuzz("kubernetes", &corpus("kubernetes")?, 1_000_000, |_, input| {
        let parrot = PARROT.take().unwrap_or_else(Parrot::new);
        *parrot.says.lock().expect("nobody panics while it is held") = input.to_vec();
        parrot.runtime.block_on(async {
            let cluster = &parrot.cluster;
            // One way of reading each: an input is made often, and every time a little otherwise.
            match input.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 4 {
                0 => drop(cluster.find(Kind::Namespace, None, "acme--search", "w").await),
                1 => drop(cluster.list(Kind::Secret, "acme--search").await),
                2 => drop(cluster.is_rolled_out("acme--search", std::slice::from_ref(&set)).await),
                _ => drop(cluster.is_rolled_out("acme--search", std::slice::from_ref(&deployment)).await),
            }
        });
        PARROT.set(Some(parrot));
    })
}

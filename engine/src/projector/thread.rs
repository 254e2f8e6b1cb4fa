//! A thread that does one thing after the other, and gives way to all others.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
};

use tokio::sync::oneshot;

/// What is added to the niceness: beside a busy thread it gets about a quarter of a core.
const NICENESS: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// It ends when this is dropped, after what it has in hand.
pub(super) struct Thread {
    jobs: mpsc::Sender<Job>,
}

impl Thread {
    /// Starts one for the view of this name.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        std::thread::Builder::new().name(format!("cairn-{name}")).spawn(move || {
            // Where it is not allowed, it has the same claim as all others: slower for them, and right all the same.
            let _ = rustix::process::nice(NICENESS);
            for job in waiting {
                job();
            }
        })?;
        Ok(Self { jobs })
    }

    /// Does `work` there; `None` if it has panicked.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let job = move || {
            // What it worked on is gone with it: nobody sees a half of it.
            if let Ok(done) = catch_unwind(AssertUnwindSafe(work)) {
                // Who asked may have gone.
                let _ = reply.send(done);
            }
        };
        self.jobs.send(Box::new(job)).ok()?;
        answer.await.ok()
    }
}

//! The commands: settings made, logs started, a runtime built, then the work. `demo` and `prove` have rooms of their own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use cairn_steps::sandbox::{Sandbox, SandboxOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    auth, cluster,
    config::{
        Command, DevArgs, Places, SandboxArgs, SandboxSettings, ServeArgs, Settings, Shared, TokenArgs, ViewsCommand,
    },
    demo, doctor, engine, plan, prove,
    shutdown::Signals,
    telemetry,
    views::Views,
};

/// Does what the command line asks for.
///
/// # Errors
/// Whatever keeps it from being done, with the way out.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => block_on(serve(*args)),
        Command::Dev(args) => block_on(dev(*args)),
        Command::Demo(args) => block_on(demo::run(*args)),
        Command::Prove(args) => block_on(prove::run(args)),
        Command::Doctor(args) => block_on(doctor::run(*args)),
        Command::Plan(args) => block_on(plan::run(*args)),
        Command::Token(args) => token(&args),
        Command::Sandbox(args) => block_on(sandbox(args)),
        Command::Views { command: ViewsCommand::Rebuild(args) } => rebuild(&args),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads to be had")?;
    let done = runtime.block_on(work);
    // What still blocks (standard input, say) is not waited for: everything that matters is on the disk.
    runtime.shutdown_background();
    done
}

async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = settings(&args.shared)?;
    let cluster = cluster::configured(&settings.cluster(&args.at)).await?;
    let cluster = cluster.tolerating(settings.tolerated.clone());
    engine::run(settings, args.testing, cluster).await
}

async fn dev(args: DevArgs) -> anyhow::Result<ExitCode> {
    let settings = settings(&args.shared)?;
    if let Some(url) = &args.sandbox {
        return engine::run(settings, args.testing, cluster::at(url)?).await;
    }
    // Before the sandbox writes its objects: on a full disk they need the room that the journal keeps for such times.
    engine::make_room(&settings.data)?;
    let running = RunningSandbox::start(&settings.data, args.sandbox_port, &args.cluster).await?;
    if settings.log_format == telemetry::LogFormat::Human {
        println!("sandbox cluster at http://{}", running.address);
        println!("kubectl --kubeconfig {} get all -A", running.kubeconfig.display());
    }
    let ended = engine::run(settings, args.testing, cairn_steps::cluster::Cluster::new(running.sandbox.client())).await;
    running.stop().await;
    ended
}

async fn sandbox(args: SandboxArgs) -> anyhow::Result<ExitCode> {
    telemetry::start(args.log_format.unwrap_or_default(), telemetry::DEFAULT_FILTER)?;
    let mut signals = Signals::new().context("signals cannot be received")?;
    let data = args.data.unwrap_or_else(|| PathBuf::from(crate::config::DATA));
    let running = RunningSandbox::start(&data, args.port, &args.cluster).await?;
    engine::announce(running.address, args.log_format.unwrap_or_default());
    if args.log_format.unwrap_or_default() == telemetry::LogFormat::Human {
        println!("kubectl --kubeconfig {} get all -A", running.kubeconfig.display());
    }
    signals.end().await;
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// The entry can be appended to the file as it is; the token is for its owner, and for nobody's file.
fn token(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let (token, entry) = auth::issue(&args.name, args.user.as_deref()).map_err(anyhow::Error::msg)?;
    println!("{entry}");
    eprintln!("the token, which is told only now: {token}");
    Ok(ExitCode::SUCCESS)
}

fn rebuild(places: &Places) -> anyhow::Result<ExitCode> {
    let settings = settings(&Shared { places: places.clone(), ..Shared::default() })?;
    let store = engine::open_store(&settings.data)?;
    let last = Views::new(&settings.views, &settings.log).rebuild(store.as_ref())?;
    store.close()?;
    println!("{} holds the journal's views up to commit {last}", settings.views.display());
    Ok(ExitCode::SUCCESS)
}

/// The settings, with logging on.
///
/// # Errors
/// If one of them is wrong.
pub(crate) fn settings(shared: &Shared) -> anyhow::Result<Settings> {
    let settings = Settings::new(shared)?;
    telemetry::start(settings.log_format, &settings.log_filter)?;
    Ok(settings)
}

/// A sandbox behind a port of its own.
pub(crate) struct RunningSandbox {
    /// The cluster.
    pub(crate) sandbox: Sandbox,
    /// Where its API is.
    pub(crate) address: SocketAddr,
    /// A file that tells kubectl so.
    pub(crate) kubeconfig: PathBuf,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl RunningSandbox {
    /// Starts one that keeps its objects below `data`.
    ///
    /// # Errors
    /// If the directory or the port cannot be used.
    pub(crate) async fn start(data: &Path, port: u16, settings: &SandboxSettings) -> anyhow::Result<Self> {
        let options = SandboxOptions {
            data: Some(data.to_owned()),
            pod_ready_after: settings.pod_ready_after(),
            ..SandboxOptions::default()
        };
        let sandbox = Sandbox::open(options)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| {
            format!("port {port} of 127.0.0.1 cannot be used for the sandbox: choose another, or 0")
        })?;
        let address = listener.local_addr()?;
        let kubeconfig = crate::config::sandbox_dir(data).join("kubeconfig");
        std::fs::write(&kubeconfig, Sandbox::kubeconfig(address))
            .with_context(|| format!("{} cannot be written", kubeconfig.display()))?;
        let kubeconfig = std::path::absolute(&kubeconfig).unwrap_or(kubeconfig);
        let stop = CancellationToken::new();
        let serving = tokio::spawn({
            let (sandbox, stop) = (sandbox.clone(), stop.clone());
            async move { sandbox.serve(listener, stop.cancelled_owned()).await }
        });
        Ok(Self { sandbox, address, kubeconfig, stop, serving })
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Ok(Err(error)) = self.serving.await {
            tracing::warn!(%error, "the sandbox's port");
        }
        self.sandbox.close().await;
    }
}

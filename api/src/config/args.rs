//! The command line, as it stays: `cairn serve|dev|demo|prove|sandbox|doctor|plan|token|views`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use cairn_steps::report::STATUSES;
use clap::{Args as ClapArgs, Parser, Subcommand};

use super::{duration, url};
use crate::demo::Scenario;
use crate::telemetry::LogFormat;

const EXAMPLES: &str = "\
Examples:
  cairn demo                               watch a cluster being created in ten journaled steps
  cairn demo --exit --crash-at k8s_applied kill the engine at that step, and watch it resume
  cairn demo --exit --fail-at k8s_applied  let that step fail, and watch everything being taken back
  cairn prove                              kill it everywhere, and count what it leaves
  cairn dev                                an engine with a sandbox cluster, data in ./cairn-data
  cairn doctor --kubeconfig ~/.kube/config what a real cluster lacks, before anything is made
  cairn plan --user acme --service-name s  what a request would do, without doing it
  cairn serve --kubeconfig ~/.kube/config  an engine for a real cluster

Every setting can also be given as a variable (CAIRN_PORT=9000) or in a file (--config cairn.toml), in that order.";

/// Creates Elasticsearch clusters on Kubernetes as durable workflows: every creation completes or leaves nothing.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program is to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the engine against a real cluster.
    #[command(
        after_help = "Example:\n  cairn serve --data /var/lib/cairn --kubeconfig ~/.kube/config --config cairn.toml"
    )]
    Serve(Box<ServeArgs>),
    /// Run the engine with a sandbox cluster of its own.
    #[command(
        after_help = "Examples:\n  cairn dev\n  cairn dev --data /tmp/cairn --port 0 --pod-ready-after 500ms\n  cairn dev --sandbox http://127.0.0.1:8081"
    )]
    Dev(Box<DevArgs>),
    /// Show one creation, live: with a crash, with a rollback, or plainly.
    #[command(
        after_help = "Examples:\n  cairn demo\n  cairn demo --exit --crash-at gitlab_pulled\n  cairn demo --exit --fail-at k8s_applied\n  cairn demo --exit --scenario image-pull",
        mut_arg("data", |arg| arg.help("Where the journal is kept [default: a new temporary directory, which stays]")),
        mut_arg("port", |arg| arg.help("The port on 127.0.0.1; 0 picks a free one and prints it [default: 8080 if it is free, else any]")),
        mut_arg("listen", |arg| arg.hide(true)),
        mut_arg("tokens", |arg| arg.hide(true))
    )]
    Demo(Box<DemoArgs>),
    /// Kill creations at every point there is, lose every answer, and count what is broken: nothing may be.
    #[command(
        after_help = "Examples:\n  cairn prove\n  cairn prove --points 100                  a sample, for a first look\n  cairn prove --points 100 --seed 42        the same sample again\n  cairn prove --every-step                  creations that fail at each of the ten steps as well\n  cairn prove --pairs --points 100          killed again in the midst of recovering\n\nExit codes: 0 no violation, 1 violations (the first ten are told, and the directory with the journals stays) or it could not be tried, 2 wrong use."
    )]
    Prove(ProveArgs),
    /// Run the sandbox cluster alone, for engines elsewhere.
    #[command(after_help = "Example:\n  cairn sandbox --port 8081 --data ./cairn-data")]
    Sandbox(SandboxArgs),
    /// Say what the cluster and this machine lack, before anything is made: rights, APIs, storage, disk, GitLab hosts.
    #[command(
        after_help = "Examples:\n  cairn doctor --kubeconfig ~/.kube/config\n  cairn doctor --kubeconfig ~/.kube/config --json | jq '.findings[] | select(.verdict == \"missing\")'\n  cairn doctor --config cairn.toml --overlay k8s/overlays/dev\n  cairn doctor --role | kubectl apply -f -\n\nExit codes: 0 nothing is missing (something may be doubtful), 1 something is missing, 2 wrong use."
    )]
    Doctor(Box<DoctorArgs>),
    /// Say what a request would do, without doing it: every object, the cluster's word on each, quota, warnings.
    #[command(
        after_help = "Examples:\n  cairn plan --user acme --service-name search --replicas 3 --kubeconfig ~/.kube/config\n  cairn plan --file request.json --server http://localhost:8080\n  cairn plan --change --user acme --service-name search --replicas 5 --server http://localhost:8080\n  cairn plan --delete --keep-data --user acme --service-name search --server http://localhost:8080\n  cairn plan --user acme --service-name search --server http://localhost:8080 --json | jq '.objects[] | select(.kind == \"StatefulSet\")'\n\nExit codes: 0 nothing was found that would refuse it, 1 something was, or no plan could be made, 2 wrong use or a wrong request."
    )]
    Plan(Box<PlanArgs>),
    /// Make a token for --tokens: it is printed once, and its entry for the file, which holds only its hash.
    #[command(
        after_help = "Examples:\n  cairn token --name acme-ci --user acme >> tokens.toml\n  cairn token --name ops --operator >> tokens.toml\n\nThe entry goes to standard output, the token to standard error."
    )]
    Token(TokenArgs),
    /// Look after the views of the journal.
    Views {
        #[command(subcommand)]
        command: ViewsCommand,
    },
}

/// What is to be done about the views.
#[derive(Debug, Subcommand)]
pub(crate) enum ViewsCommand {
    /// Make report files, deployment log and record files anew from the journal. No engine may run on it.
    #[command(after_help = "Example:\n  cairn views rebuild --data ./cairn-data")]
    Rebuild(Box<Places>),
}

/// Where everything is, and how the program speaks.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct Places {
    /// Where the journal is kept [default: ./cairn-data]
    #[arg(long, value_name = "DIR", env = "CAIRN_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// How logs are written [default: human]
    #[arg(long, value_name = "FORMAT", env = "CAIRN_LOG_FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged, such as `info,cairn=debug`
    #[arg(long, value_name = "FILTER", env = "CAIRN_LOG_FILTER")]
    pub(crate) log_filter: Option<String>,
    /// Where report files and records are written [default: DATA/views]
    #[arg(long, value_name = "DIR", env = "CAIRN_VIEWS")]
    pub(crate) views: Option<PathBuf>,
    /// The deployment log, a line a report [default: VIEWS/deployment.log]
    #[arg(long, value_name = "FILE", env = "CAIRN_LOG")]
    pub(crate) log: Option<PathBuf>,
    /// A file with settings and quotas (TOML); quotas and GitLab hosts are read again on SIGHUP
    #[arg(long, value_name = "FILE", env = "CAIRN_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// What every engine takes.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct Shared {
    #[command(flatten)]
    pub(crate) places: Places,
    /// The address to listen at; beyond loopback only with --tokens [default: 127.0.0.1]
    #[arg(long, value_name = "IP", env = "CAIRN_LISTEN")]
    pub(crate) listen: Option<IpAddr>,
    /// A file with the tokens that are accepted, as `cairn token` makes them; read again on SIGHUP
    #[arg(long, value_name = "FILE", env = "CAIRN_TOKENS")]
    pub(crate) tokens: Option<PathBuf>,
    /// A kustomize directory that is laid over the objects of every cluster [default: none]
    #[arg(long, value_name = "DIR", env = "CAIRN_OVERLAY")]
    pub(crate) overlay: Option<PathBuf>,
    /// The port; 0 picks a free one and prints it [default: 8080]
    #[arg(long, value_name = "N", env = "CAIRN_PORT")]
    pub(crate) port: Option<u16>,
    /// How long attempts in hand may take at the end [default: 10s]
    #[arg(long, value_name = "DURATION", env = "CAIRN_GRACE", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
    /// Attempts in flight at most [default: 64]
    #[arg(long, value_name = "N", env = "CAIRN_IN_FLIGHT")]
    pub(crate) in_flight: Option<usize>,
    /// Attempts in flight for one tenant at most [default: 16]
    #[arg(long, value_name = "N", env = "CAIRN_IN_FLIGHT_PER_TENANT")]
    pub(crate) in_flight_per_tenant: Option<usize>,
    /// Connections at most [default: 1024]
    #[arg(long, value_name = "N", env = "CAIRN_CONNECTIONS")]
    pub(crate) connections: Option<usize>,
    /// A GitLab host from which settings may be pulled, `HOST` or `HOST:PORT` [default: none]
    #[arg(long = "gitlab-host", value_name = "HOST", env = "CAIRN_GITLAB_HOSTS", value_delimiter = ',')]
    pub(crate) gitlab_hosts: Vec<String>,
    /// The same, for a host whose address lies inside
    #[arg(
        long = "gitlab-private-host",
        value_name = "HOST",
        env = "CAIRN_GITLAB_PRIVATE_HOSTS",
        value_delimiter = ','
    )]
    pub(crate) gitlab_private_hosts: Vec<String>,
    /// The version of Elasticsearch and Kibana that creations install [default: 9.1.4]
    #[arg(long, value_name = "VERSION", env = "CAIRN_ES_VERSION")]
    pub(crate) es_version: Option<String>,
    /// The image of Elasticsearch; without a tag, the version is it [default: docker.elastic.co/elasticsearch/elasticsearch]
    #[arg(long, value_name = "IMAGE", env = "CAIRN_ES_IMAGE")]
    pub(crate) es_image: Option<String>,
    /// The image of Kibana; without a tag, the version is it [default: docker.elastic.co/kibana/kibana]
    #[arg(long, value_name = "IMAGE", env = "CAIRN_KIBANA_IMAGE")]
    pub(crate) kibana_image: Option<String>,
    /// Refuse a request whose vectors do not fit its memory or disk, instead of warning of it
    #[arg(long, env = "CAIRN_STRICT_SIZING")]
    pub(crate) strict_sizing: bool,
    /// Pull over plain http too
    #[arg(long, env = "CAIRN_GITLAB_ALLOW_HTTP")]
    pub(crate) gitlab_allow_http: bool,
}

/// `cairn serve`
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) testing: Testing,
}

/// Which cluster.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct At {
    /// The kubeconfig [default: KUBECONFIG, ~/.kube/config, or the pod's own]
    #[arg(long, value_name = "FILE", env = "CAIRN_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", env = "CAIRN_CONTEXT")]
    pub(crate) context: Option<String>,
}

/// `cairn doctor`
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(flatten)]
    pub(crate) at: At,
    /// Print all that was looked at as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Look at nothing, and print the ClusterRole that cairn needs
    #[arg(long)]
    pub(crate) role: bool,
}

/// `cairn plan`
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// Ask the engine at this URL, which knows what is in use; without it the cluster is asked directly
    #[arg(long, value_name = "URL", env = "CAIRN_SERVER", value_parser = url)]
    pub(crate) server: Option<reqwest::Url>,
    /// Plan a change of the cluster that is there: the other flags and the file say what shall be otherwise
    #[arg(long, requires = "server", conflicts_with = "delete")]
    pub(crate) change: bool,
    /// Plan the deletion of the cluster that is there
    #[arg(long, requires = "server")]
    pub(crate) delete: bool,
    /// The deletion would keep the disks
    #[arg(long, requires = "delete")]
    pub(crate) keep_data: bool,
    /// The file with the token for --server
    #[arg(long, value_name = "FILE", env = "CAIRN_TOKEN_FILE", requires = "server")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) shared: Shared,
    /// Print the plan as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A request, as flags.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "The request")]
pub(crate) struct RequestArgs {
    /// A file with the request as JSON, `-` for standard input; flags win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[arg(long, value_name = "NAME")]
    service_name: Option<String>,
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[arg(long, value_name = "N")]
    replicas: Option<u64>,
    #[arg(long, value_name = "QUANTITY")]
    cpu_request: Option<String>,
    #[arg(long, value_name = "QUANTITY")]
    cpu_limit: Option<String>,
    #[arg(long, value_name = "QUANTITY")]
    mem_request: Option<String>,
    #[arg(long, value_name = "QUANTITY")]
    mem_limit: Option<String>,
    #[arg(long, value_name = "QUANTITY")]
    disk_size: Option<String>,
    #[arg(long, value_name = "N")]
    gpu_count: Option<u64>,
    #[arg(long, value_name = "N")]
    dimension: Option<u64>,
    #[arg(long, value_name = "N")]
    vector_count: Option<u64>,
    #[arg(long, value_name = "URL")]
    gitlab_url: Option<String>,
}

impl RequestArgs {
    /// The fields that were given.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (String, serde_json::Value)> {
        let texts = [
            ("user", &self.user),
            ("service_name", &self.service_name),
            ("namespace", &self.namespace),
            ("cpu_request", &self.cpu_request),
            ("cpu_limit", &self.cpu_limit),
            ("mem_request", &self.mem_request),
            ("mem_limit", &self.mem_limit),
            ("disk_size", &self.disk_size),
            ("gitlab_url", &self.gitlab_url),
        ];
        let numbers = [
            ("replicas", self.replicas),
            ("gpu_count", self.gpu_count),
            ("dimension", self.dimension),
            ("vector_count", self.vector_count),
        ];
        let texts = texts.map(|(name, text)| (name, text.clone().map(serde_json::Value::from)));
        let numbers = numbers.map(|(name, number)| (name, number.map(serde_json::Value::from)));
        texts.into_iter().chain(numbers).filter_map(|(name, value)| Some((name.to_owned(), value?)))
    }
}

/// `cairn token`
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct TokenArgs {
    /// What it is called in the log of changes and in the journal
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// The tenant that it is for: it sees and changes nothing else
    #[arg(long, value_name = "TENANT", required_unless_present = "operator", conflicts_with = "operator")]
    pub(crate) user: Option<String>,
    /// It is for an operator, who sees and changes everything
    #[arg(long)]
    pub(crate) operator: bool,
}

/// `cairn dev`
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(flatten)]
    pub(crate) cluster: SandboxSettings,
    /// Use the sandbox that runs at this URL, instead of one in this process
    #[arg(long, value_name = "URL", env = "CAIRN_SANDBOX")]
    pub(crate) sandbox: Option<String>,
    /// The port of the sandbox's own API; 0 picks a free one [default: 0]
    #[arg(long, value_name = "N", env = "CAIRN_SANDBOX_PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) sandbox_port: u16,
    #[command(flatten)]
    pub(crate) testing: Testing,
}

/// `cairn demo`
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(flatten)]
    pub(crate) cluster: SandboxSettings,
    /// End when it was shown, instead of serving on until Ctrl-C; exit 0 if what was asked for happened
    #[arg(long)]
    pub(crate) exit: bool,
    /// Kill the engine's process with SIGKILL at this step, and resume in a new one
    #[arg(long, value_name = "STEP", conflicts_with = "fail_at")]
    pub(crate) crash_at: Option<StepChoice>,
    /// Let this step fail, and take everything back
    #[arg(long, value_name = "STEP")]
    pub(crate) fail_at: Option<StepChoice>,
    /// A cluster where the creation cannot work out, and how it says so
    #[arg(long, value_name = "NAME", conflicts_with_all = ["crash_at", "fail_at", "config"])]
    pub(crate) scenario: Option<Scenario>,
}

/// `cairn prove`
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ProveArgs {
    /// Try so many points, chosen at random, instead of all
    #[arg(long, value_name = "N")]
    pub(crate) points: Option<std::num::NonZeroUsize>,
    /// The seed of what is chosen at random [default: a new one, which is printed]
    #[arg(long, value_name = "N", env = "CAIRN_TEST_SEED")]
    pub(crate) seed: Option<u64>,
    /// Try creations that fail at each of the ten steps too, and not at the last one only
    #[arg(long)]
    pub(crate) every_step: bool,
    /// Kill each engine at a call to the cluster, and the one that recovers at one of its first calls as well
    #[arg(long)]
    pub(crate) pairs: bool,
    /// How many are tried at the same time [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<std::num::NonZeroUsize>,
}

/// `cairn sandbox`
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SandboxArgs {
    /// The objects are kept under DIR/sandbox [default: ./cairn-data]
    #[arg(long, value_name = "DIR", env = "CAIRN_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// The port on 127.0.0.1; 0 picks a free one and prints it [default: 8081]
    #[arg(long, value_name = "N", env = "CAIRN_SANDBOX_PORT", default_value_t = 8081, hide_default_value = true)]
    pub(crate) port: u16,
    /// How logs are written [default: human]
    #[arg(long, value_name = "FORMAT", env = "CAIRN_LOG_FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    #[command(flatten)]
    pub(crate) cluster: SandboxSettings,
}

/// How the sandbox cluster behaves.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SandboxSettings {
    /// How long a pod of the sandbox takes to become ready [default: 2s]
    #[arg(long, value_name = "DURATION", env = "CAIRN_POD_READY_AFTER", value_parser = duration)]
    pub(crate) pod_ready_after: Option<Duration>,
}

impl SandboxSettings {
    /// How long a pod takes to become ready.
    pub(crate) fn pod_ready_after(&self) -> Duration {
        self.pod_ready_after.unwrap_or(Duration::from_secs(2))
    }
}

/// Faults on purpose. Nobody needs them but tests and `cairn demo`.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "Testing")]
pub(crate) struct Testing {
    /// SIGKILL this very process: `append:K:before`, `append:K:after` (around the K-th append), or `step:NAME`
    /// (right after the start of that step is on the disk)
    #[arg(long, value_name = "POINT", env = "CAIRN_KILL_AT", value_parser = crate::killpoint::KillPoint::parse)]
    pub(crate) kill_at: Option<crate::killpoint::KillPoint>,
    /// Let this step do its work and then fail for good
    #[arg(long, value_name = "STEP", env = "CAIRN_FAIL_AT")]
    pub(crate) fail_at: Option<StepChoice>,
    /// End when standard input is closed: when the parent process is gone
    #[arg(long, env = "CAIRN_EXIT_WITH_PARENT")]
    pub(crate) exit_with_parent: bool,
    /// What is otherwise in an engine that is only measured: no flag turns that on.
    #[arg(skip)]
    pub(crate) instead: Option<crate::Instead>,
}

/// The name of one of the ten steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepChoice(&'static str);

impl StepChoice {
    /// All ten, in order.
    pub(crate) fn all() -> impl DoubleEndedIterator<Item = Self> {
        STATUSES.into_iter().map(Self)
    }

    /// The step's name.
    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }
}

impl std::str::FromStr for StepChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = STATUSES.iter().find(|name| **name == text);
        found
            .map(|name| Self(name))
            .ok_or_else(|| format!("there is no such step: the ten are {}", STATUSES.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_help_of_each_command_names_the_defaults_that_it_has() {
        let help = |name: &str| {
            let mut args = Args::command();
            args.find_subcommand_mut(name).expect("there is one").render_help().to_string()
        };
        let (dev, demo) = (help("dev"), help("demo"));
        assert!(dev.contains("[default: ./cairn-data]") && dev.contains("[default: 8080]"), "{dev}");
        assert!(!demo.contains("./cairn-data") && !demo.contains("[default: 8080]"), "{demo}");
        for default in ["[default: a new temporary directory, which stays]", "[default: 8080 if it is free, else any]"]
        {
            assert!(demo.contains(default), "{default} in {demo}");
        }
    }

    #[test]
    fn an_unknown_step_is_wrong_use_and_the_ten_are_named() {
        let error = Args::try_parse_from(["cairn", "demo", "--fail-at", "nope"]).expect_err("no such step");
        assert_eq!(error.exit_code(), 2);
        for step in STATUSES {
            assert!(error.to_string().contains(step), "{step} in {error}");
        }
    }
}

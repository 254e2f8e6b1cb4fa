//! Arguments → checked settings, in two stages.
//!
//! First every source is read as it is: flags and `CAIRN_…` variables (a flag wins), the file of `--config`. Then they are
//! laid over each other and checked, and every wrong value is named by its key. Quotas, the GitLab rules and the tokens are
//! read again on SIGHUP ([`Settings::reread`]); a file that is wrong then changes nothing.

mod args;
mod file;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cairn_engine::{Amounts, Limits, Tenant};
use cairn_steps::cluster::{rollout::RolloutRules, strangers::Tolerated};
use cairn_steps::elastic::{DEFAULT_VERSION, Elastic, ElasticError};
use cairn_steps::gitlab::{AllowedHost, GitLabRules};
use cairn_steps::overlay::Overlay;

pub(crate) use self::args::{
    Args, At, Command, DemoArgs, DevArgs, DoctorArgs, Places, PlanArgs, ProveArgs, RequestArgs, SandboxArgs,
    SandboxSettings, ServeArgs, Shared, StepChoice, Testing, TokenArgs, ViewsCommand,
};
use self::file::{ElasticFile, File};
use crate::auth::Tokens;
use crate::telemetry::{DEFAULT_FILTER, LogFormat};

/// The port that the scripts of users call.
const PORT: u16 = 8080;
/// Where everything is kept if nobody says otherwise.
pub(crate) const DATA: &str = "cairn-data";
/// The most connections at once.
const CONNECTIONS: usize = 1024;
/// How far behind the journal the views may be.
const VIEWS_BEHIND: Duration = Duration::from_secs(30);
/// How long attempts in hand may take when the program ends.
const GRACE: Duration = Duration::from_secs(10);

/// Settings that are complete and right.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where the journal, the sandbox and, unless moved, the views are.
    pub(crate) data: PathBuf,
    /// The address to listen at.
    pub(crate) listen: IpAddr,
    /// The port there; 0 for any that is free.
    pub(crate) port: u16,
    /// How logs are written.
    pub(crate) log_format: LogFormat,
    /// What is logged.
    pub(crate) log_filter: String,
    /// Where the views are.
    pub(crate) views: PathBuf,
    /// The deployment log: a line a report.
    pub(crate) log: PathBuf,
    /// The most connections at once.
    pub(crate) connections: usize,
    /// How far behind the journal the views may be before new creations have to wait for them.
    pub(crate) views_behind: Duration,
    /// How long attempts in hand may take when the program ends.
    pub(crate) grace: Duration,
    /// How much may be under way at once.
    pub(crate) limits: Limits,
    /// The kubeconfig, as the file has it.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in it, as the file has it.
    pub(crate) context: Option<String>,
    /// What creations install.
    pub(crate) elastic: Elastic,
    /// Whether vectors that do not fit are refused, instead of warned of.
    pub(crate) strict_sizing: bool,
    /// How long a rollout, and each sign of trouble in it, may last.
    pub(crate) rollout: RolloutRules,
    /// What the cluster puts into its namespaces by itself.
    pub(crate) tolerated: Vec<Tolerated>,
    /// What may change while the program runs.
    pub(crate) rules: Rules,
    /// Where the rules were read from, and are read again.
    pub(crate) file: Option<PathBuf>,
    /// What is laid over the objects of every cluster.
    pub(crate) overlay: Option<PathBuf>,
    /// Where the tokens were read from, and are read again.
    tokens: Option<PathBuf>,
    /// The flags, which win over the file also when it is read again.
    shared: Shared,
}

/// What may change while the program runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// The most that a tenant without a quota of its own may hold.
    quota: Amounts,
    /// The most that these tenants may hold.
    quotas: BTreeMap<Tenant, Amounts>,
    /// Which GitLab hosts may be asked.
    pub(crate) gitlab: GitLabRules,
    /// Who may ask; without it whoever reaches the port.
    pub(crate) tokens: Option<Tokens>,
}

impl Rules {
    /// Whether anybody's use is limited at all.
    pub(crate) fn has_quota(&self) -> bool {
        !self.quota.is_empty()
    }

    /// The most that this tenant may hold; what is not named is not limited.
    pub(crate) fn quota(&self, tenant: &Tenant) -> Amounts {
        self.quotas.get(tenant).unwrap_or(&self.quota).clone()
    }
}

/// Why the settings cannot be used: one line for each wrong value.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct ConfigError(Vec<String>);

impl ConfigError {
    /// One value is wrong.
    pub(crate) fn of(wrong: impl Into<String>) -> Self {
        Self(vec![wrong.into()])
    }
}

/// The URL of an engine.
///
/// # Errors
/// If it is none.
pub(crate) fn url(text: &str) -> Result<reqwest::Url, String> {
    let url: Option<reqwest::Url> = text.parse().ok();
    url.filter(|url| ["http", "https"].contains(&url.scheme()))
        .ok_or_else(|| format!("`{text}` is no URL such as http://localhost:8080"))
}

/// A duration as people write it: `500ms`, `30s`, `10m`.
///
/// # Errors
/// If it is none, or negative.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration such as `500ms`, `30s` or `10m`");
    let read: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(read).map_err(|_| wrong())
}

impl Settings {
    /// Lays flags and variables over the file, the file over the defaults, and checks it all.
    ///
    /// # Errors
    /// [`ConfigError`] names every value that is wrong.
    pub(crate) fn new(shared: &Shared) -> Result<Self, ConfigError> {
        let file = File::read(shared.places.config.as_deref()).map_err(|error| ConfigError(vec![error]))?;
        let mut errors = Vec::new();
        let tokens = shared.tokens.clone().or(file.tokens.clone());
        let rules = rules(shared, &file, tokens.as_deref(), &mut errors);
        let listen = shared.listen.or(file.listen).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        if !listen.is_loopback() && tokens.is_none() {
            errors.push(format!(
                "listen: at {listen} other machines could do whatever they like with every cluster: \
                 give --tokens FILE, so that they have to say who they are (`cairn token` makes them), or listen at 127.0.0.1"
            ));
        }
        let mut tolerated = Vec::new();
        for text in &file.cluster.tolerate {
            match text.parse() {
                Ok(tolerates) => tolerated.push(tolerates),
                Err(error) => errors.push(format!("cluster.tolerate: {error}")),
            }
        }
        let elastic = elastic(shared, &file.elastic, &mut errors);
        let rollout = file.rollout.rules(&mut errors);
        let limits = Limits::default();
        let mut at_least_one = |key: &str, value: usize| {
            if value == 0 {
                errors.push(format!("{key}: 0 would let nothing run: it is at least 1"));
            }
            value
        };
        let limits = Limits {
            in_flight: at_least_one(
                "limits.in_flight",
                shared.in_flight.or(file.limits.in_flight).unwrap_or(limits.in_flight),
            ),
            in_flight_per_tenant: at_least_one(
                "limits.in_flight_per_tenant",
                shared.in_flight_per_tenant.or(file.limits.in_flight_per_tenant).unwrap_or(limits.in_flight_per_tenant),
            ),
            queue: at_least_one("limits.queue", file.limits.queue.unwrap_or(limits.queue)),
            active: at_least_one("limits.active", file.limits.active.unwrap_or(limits.active)),
        };
        let connections =
            at_least_one("limits.connections", shared.connections.or(file.limits.connections).unwrap_or(CONNECTIONS));
        let grace = shared.grace.or_else(|| {
            let text = file.grace.as_deref()?;
            duration(text).map_err(|error| errors.push(format!("grace: {error}"))).ok()
        });
        let views_behind =
            file.limits.views_behind.as_deref().and_then(|text| {
                duration(text).map_err(|error| errors.push(format!("limits.views_behind: {error}"))).ok()
            });
        let data = shared.places.data.clone().or(file.data.clone()).unwrap_or_else(|| DATA.into());
        let views = shared.places.views.clone().or(file.views.clone()).unwrap_or_else(|| data.join("views"));
        let log = shared.places.log.clone().or(file.log.clone()).unwrap_or_else(|| views.join("deployment.log"));
        if !errors.is_empty() {
            return Err(ConfigError(errors));
        }
        Ok(Self {
            listen,
            port: shared.port.or(file.port).unwrap_or(PORT),
            log_format: shared.places.log_format.or(file.log_format).unwrap_or_default(),
            log_filter: shared
                .places
                .log_filter
                .clone()
                .or(file.log_filter.clone())
                .unwrap_or_else(|| DEFAULT_FILTER.to_owned()),
            connections,
            views_behind: views_behind.unwrap_or(VIEWS_BEHIND),
            grace: grace.unwrap_or(GRACE),
            limits,
            kubeconfig: file.kubeconfig.clone(),
            context: file.context.clone(),
            elastic,
            strict_sizing: shared.strict_sizing || file.elastic.strict_sizing,
            rollout,
            tolerated,
            rules,
            file: shared.places.config.clone(),
            tokens,
            overlay: shared.overlay.clone().or(file.overlay.clone()),
            shared: shared.clone(),
            data,
            views,
            log,
        })
    }

    /// Which cluster: as the flags say, else as the file does.
    pub(crate) fn cluster(&self, flags: &At) -> At {
        At {
            kubeconfig: flags.kubeconfig.clone().or_else(|| self.kubeconfig.clone()),
            context: flags.context.clone().or_else(|| self.context.clone()),
        }
    }

    /// What is laid over the objects of every cluster, checked and built.
    ///
    /// # Errors
    /// [`ConfigError`] with what is wrong with the directory.
    pub(crate) async fn load_overlay(&self) -> Result<Option<Arc<Overlay>>, ConfigError> {
        let Some(directory) = self.overlay.clone() else { return Ok(None) };
        // A program runs meanwhile.
        let loaded = tokio::task::spawn_blocking(move || Overlay::load(&directory)).await;
        match loaded.expect("nothing there panics") {
            Ok(overlay) => {
                let (changed, added) = overlay.counts();
                tracing::info!(changed, added, sha256 = overlay.sha256, "an overlay is laid over every new cluster");
                Ok(Some(Arc::new(overlay)))
            }
            Err(error) => Err(ConfigError(vec![crate::telemetry::chain(&error)])),
        }
    }

    /// The rules as the file has them now.
    ///
    /// # Errors
    /// [`ConfigError`] names every value that is wrong; the rules in force are not touched.
    pub(crate) fn reread(&self) -> Result<Rules, ConfigError> {
        let file = File::read(self.file.as_deref()).map_err(|error| ConfigError(vec![error]))?;
        let mut errors = Vec::new();
        let rules = rules(&self.shared, &file, self.tokens.as_deref(), &mut errors);
        if errors.is_empty() { Ok(rules) } else { Err(ConfigError(errors)) }
    }
}

/// Where a sandbox with this data directory keeps its objects.
pub(crate) fn sandbox_dir(data: &Path) -> PathBuf {
    data.join("sandbox")
}

fn elastic(shared: &Shared, file: &ElasticFile, errors: &mut Vec<String>) -> Elastic {
    let version = shared.es_version.as_deref().or(file.version.as_deref()).unwrap_or(DEFAULT_VERSION);
    let image = shared.es_image.as_deref().or(file.image.as_deref());
    let kibana = shared.kibana_image.as_deref().or(file.kibana_image.as_deref());
    // Each by itself, so that every wrong value is named.
    let mut check = |key: &str, made: Result<Elastic, ElasticError>| {
        made.map_err(|error| errors.push(format!("elastic.{key}: {error}"))).ok()
    };
    check("version", Elastic::new(version, None, None));
    check("image", Elastic::new(DEFAULT_VERSION, image, None));
    check("kibana_image", Elastic::new(DEFAULT_VERSION, None, kibana));
    Elastic::new(version, image, kibana).unwrap_or_default()
}

fn rules(shared: &Shared, file: &File, tokens: Option<&Path>, errors: &mut Vec<String>) -> Rules {
    let mut hosts = Vec::new();
    let mut add = |key: &str, names: &[String], private: bool| {
        for name in names {
            match AllowedHost::parse(name) {
                Ok(host) => hosts.push(if private { host.private() } else { host }),
                Err(error) => {
                    errors.push(format!("{key}: `{name}` is no host such as `gitlab.example.com:8443`: {error}"));
                }
            }
        }
    };
    let or = |flags: &Vec<String>, file: &Vec<String>| if flags.is_empty() { file.clone() } else { flags.clone() };
    add("gitlab.hosts", &or(&shared.gitlab_hosts, &file.gitlab.hosts), false);
    add("gitlab.private_hosts", &or(&shared.gitlab_private_hosts, &file.gitlab.private_hosts), true);
    let allow_http = shared.gitlab_allow_http || file.gitlab.allow_http;
    let gitlab = GitLabRules {
        hosts,
        allow_http,
        tokens: file.gitlab.tokens.iter().filter_map(|(name, token)| token.token(name, errors)).collect(),
        ..GitLabRules::default()
    };
    let mut quotas = BTreeMap::new();
    for (name, quota) in &file.quota.tenants {
        if let Err(error) = cairn_steps::names::Tenant::parse(name) {
            errors.push(format!("quota.tenants.{name}: the name {error}"));
        }
        quotas.insert(Tenant::new(name), quota.amounts(&format!("quota.tenants.{name}"), errors));
    }
    let quota = file.quota.default.amounts("quota.default", errors);
    let mut accepted = None;
    if let Some(path) = tokens {
        match Tokens::read(path) {
            Ok(read) => accepted = Some(read),
            Err(wrong) => errors.extend(wrong),
        }
    }
    Rules { quota, quotas, gitlab, tokens: accepted }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn shared(arguments: &[&str]) -> Shared {
        let arguments = ["cairn", "serve"].iter().chain(arguments);
        match Args::try_parse_from(arguments).expect("right arguments").command {
            Command::Serve(serve) => serve.shared,
            _ => unreachable!("`serve` was asked for"),
        }
    }

    fn with_file(text: &str, arguments: &[&str]) -> Result<Settings, ConfigError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cairn.toml");
        std::fs::write(&path, text).expect("written");
        let path = path.to_str().expect("UTF-8");
        Settings::new(&shared(&[&["--config", path], arguments].concat()))
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let settings =
            with_file("port = 9000\ndata = \"/d\"\n[limits]\nin_flight = 3", &["--port", "0"]).expect("right");
        assert_eq!((settings.port, settings.data.as_path()), (0, Path::new("/d")));
        assert_eq!((settings.limits.in_flight, settings.connections), (3, CONNECTIONS));
        assert_eq!(settings.log, Path::new("/d/views/deployment.log"));
    }

    #[test]
    fn beyond_loopback_nobody_listens_without_tokens() {
        let error = with_file("listen = \"0.0.0.0\"", &[]).expect_err("refused").to_string();
        assert!(error.contains("listen:") && error.contains("--tokens"), "{error}");
        assert!(with_file("", &["--listen", "127.0.0.2"]).is_ok());
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = directory.path().join("tokens.toml");
        std::fs::write(&tokens, "").expect("written");
        let path = tokens.to_str().expect("UTF-8");
        let error = with_file("", &["--listen", "::", "--tokens", path]).expect_err("refused").to_string();
        assert!(error.contains("holds no token"), "{error}");
        std::fs::write(&tokens, crate::auth::issue("ops", None).expect("a good name").1).expect("written");
        let settings = with_file("", &["--listen", "::", "--tokens", path]).expect("safe");
        assert!(settings.rules.tokens.is_some());
    }

    #[test]
    fn a_tenant_has_its_own_quota_or_the_default() {
        let settings = with_file(
            "[quota.default]\nclusters = 2\ncpu = \"1500m\"\n[quota.tenants.acme]\nmemory = \"1Gi\"\ngpus = 0",
            &[],
        )
        .expect("right");
        let other = settings.rules.quota(&"other".into());
        assert_eq!(other.get(&"clusters".into()), Some(&2));
        assert_eq!(other.get(&"cpu_millis".into()), Some(&1500));
        let acme = settings.rules.quota(&"acme".into());
        assert_eq!(acme.get(&"memory_bytes".into()), Some(&(1 << 30)));
        assert_eq!((acme.get(&"gpus".into()), acme.get(&"clusters".into())), (Some(&0), None));
    }

    #[test]
    fn a_token_has_a_host_tenants_and_a_place_and_never_a_value() {
        let text =
            "[gitlab.tokens.acme-config]\nhost = \"gitlab.example.com\"\ntenants = [\"acme\"]\nfile = \"/run/token\"";
        let settings = with_file(text, &[]).expect("right");
        assert_eq!(settings.rules.gitlab.tokens[0].name, "acme-config");
        let text = "[gitlab.tokens.a]\nhost = \"h\"\ntenants = [\"a\"]\n[gitlab.tokens.b]\nhost = \"h\"\nvariable = \"T\"\n[gitlab.tokens.c]\ntenants = [\"a\"]\nvariable = \"T\"";
        let error = with_file(text, &[]).expect_err("three of them").to_string();
        for key in ["gitlab.tokens.a.file:", "gitlab.tokens.b.tenants:", "gitlab.tokens.c.host:"] {
            assert!(error.contains(key), "{key} in {error}");
        }
        with_file("[gitlab.tokens.a]\nvalue = \"secret\"", &[]).expect_err("a value has no place in the file");
    }

    #[test]
    fn version_images_and_thresholds_come_from_flags_or_the_file() {
        let text = "[elastic]\nversion = \"8.19.2\"\nimage = \"a/es\"\nstrict_sizing = true\n[rollout]\ndeadline = \"20m\"\nimage_grace = \"5s\"\nrestarts_max = 5";
        let settings = with_file(text, &["--es-image", "b/es", "--kibana-image", "b/kibana:1"]).expect("right");
        assert_eq!(settings.elastic.elasticsearch_image(), "b/es:8.19.2");
        assert_eq!(settings.elastic.kibana_image(), "b/kibana:1");
        assert!(settings.strict_sizing);
        assert_eq!(settings.rollout.deadline, Duration::from_secs(1200));
        assert_eq!(settings.rollout.trouble.image_grace, Duration::from_secs(5));
        assert_eq!(settings.rollout.trouble.restarts_max, 5);
        assert_eq!(settings.rollout.trouble.config_grace, RolloutRules::default().trouble.config_grace);
        let text = "[elastic]\nversion = \"9\"\nimage = \"a b\"\nkibana_image = \"/\"\n[rollout]\ndeadline = \"0s\"\nschedule_grace = \"x\"\nrestarts_max = 0";
        let error = with_file(text, &[]).expect_err("six of them").to_string();
        for key in [
            "elastic.version:",
            "elastic.image:",
            "elastic.kibana_image:",
            "rollout.deadline:",
            "rollout.schedule_grace:",
            "rollout.restarts_max:",
        ] {
            assert!(error.contains(key), "{key} in {error}");
        }
    }

    #[test]
    fn every_wrong_value_is_named_by_its_key() {
        let text = "grace = \"soon\"\n[limits]\nin_flight = 0\n[cluster]\ntolerate = [\"what\"]\n[gitlab]\nhosts = [\"a/b\"]\n[quota.tenants.A]\ncpu = \"1GB\"";
        let error = with_file(text, &[]).expect_err("four of them").to_string();
        for key in [
            "grace:",
            "limits.in_flight:",
            "cluster.tolerate:",
            "gitlab.hosts:",
            "quota.tenants.A:",
            "quota.tenants.A.cpu:",
        ] {
            assert!(error.contains(key), "{key} in {error}");
        }
        let error = with_file("prot = 1", &[]).expect_err("a typo").to_string();
        assert!(error.contains("prot"), "{error}");
    }
}

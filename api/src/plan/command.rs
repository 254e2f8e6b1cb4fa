//! `cairn plan`: from flags or a file, against a running engine or a cluster.

use std::{io::Read as _, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use cairn_engine::{Quota, Tenant};
use cairn_steps::{
    gitlab::GitLab,
    input::Input,
    names::{self, NameError},
    request::FieldError,
};
use http::StatusCode;
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::{Charge, of_creation, print};
use crate::{
    admission::{self, holds},
    cluster, command,
    config::{ConfigError, PlanArgs, RequestArgs},
};

/// The longest that an engine may take for its answer: it asks its cluster a hundred times.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// Prints the plan, and gives 1 if it would not work out, 2 if the request is wrong.
///
/// # Errors
/// If there is no plan to be had.
pub(crate) async fn run(args: PlanArgs) -> anyhow::Result<ExitCode> {
    let planned = match (body(&args.request)?, &args.server) {
        (Err(wrong), _) => Err(wrong),
        (Ok(body), Some(url)) => from_server(url, &args, body).await?,
        (Ok(body), None) => directly(&args, &Value::Object(body)).await?,
    };
    let plan = match planned {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!("cairn: the request is wrong");
            wrong.iter().for_each(|error| eprintln!("  {}: {}", error.field, error.message));
            return Ok(ExitCode::from(2));
        }
    };
    if args.json {
        println!("{plan:#}")
    } else {
        print::plan(&plan)
    }
    Ok(if plan["possible"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The plan, or what is wrong with the request.
type Planned = Result<Value, Vec<FieldError>>;

/// The request: the file's fields, with the flags laid over them; or why the file has none.
fn body(args: &RequestArgs) -> Result<Result<Map<String, Value>, Vec<FieldError>>, ConfigError> {
    let mut body = Map::new();
    if let Some(path) = args.file.as_deref() {
        let (text, shown) = if path == Path::new("-") {
            let mut text = String::new();
            (std::io::stdin().read_to_string(&mut text).map(|_| text), "standard input".to_owned())
        } else {
            (std::fs::read_to_string(path), path.display().to_string())
        };
        let text = text.map_err(|error| ConfigError::of(format!("file: {shown} cannot be read: {error}")))?;
        body = match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Ok(Err(vec![FieldError::new("file", format!("{shown}: a request is a JSON object"))])),
            Err(error) => return Ok(Err(vec![FieldError::new("file", format!("{shown} is no JSON: {error}"))])),
        };
    }
    body.extend(args.fields());
    Ok(Ok(body))
}

async fn directly(args: &PlanArgs, body: &Value) -> anyhow::Result<Planned> {
    let settings = command::settings(&args.shared)?;
    let gitlab = GitLab::new(settings.rules.gitlab.clone());
    let request = match admission::creation(body.to_string().as_bytes(), &gitlab, settings.strict_sizing) {
        Ok(request) => request,
        Err(errors) => return Ok(Err(errors)),
    };
    let cluster = cluster::configured(&settings.cluster(&args.at)).await?;
    let overlay = settings.load_overlay().await?;
    let limits = settings.rules.quota(&Tenant::new(request.user.as_str()));
    let charge = Charge::Alone(Quota { wanted: holds(&request), limits, ..Quota::default() });
    let input = Input::creation(request);
    let plan = of_creation(&cluster, input, settings.elastic, overlay.as_deref().cloned(), charge).await;
    Ok(Ok(serde_json::to_value(plan)?))
}

async fn from_server(url: &Url, args: &PlanArgs, mut fields: Map<String, Value>) -> anyhow::Result<Planned> {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIME_MAX).build()?;
    let base = url.as_str().trim_end_matches('/');
    let mut request = if args.change || args.delete {
        // Which cluster is in the path, and nothing that could be changed.
        let at = match take_names(&mut fields) {
            Ok((user, service)) => format!("{base}/clusters/{}/{}", user.as_str(), service.as_str()),
            Err(wrong) => return Ok(Err(wrong)),
        };
        match args.delete {
            true => client.delete(format!("{at}?dry_run=true&keep_data={}", args.keep_data)),
            false => client.patch(format!("{at}?dry_run=true")).json(&fields),
        }
    } else {
        client.post(format!("{base}/clusters?dry_run=true")).json(&fields)
    };
    if let Some(path) = &args.token_file {
        let token = std::fs::read_to_string(path);
        let token = token
            .map_err(|error| ConfigError::of(format!("token_file: {} cannot be read: {error}", path.display())))?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().await.with_context(|| format!("server: {url} does not answer"))?;
    let status = answer.status();
    let text = answer.text().await.with_context(|| format!("server: {url} does not end its answer"))?;
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "detail": text }));
    let detail = answer["detail"].as_str().unwrap_or("?");
    match status {
        StatusCode::OK => Ok(Ok(answer)),
        StatusCode::UNPROCESSABLE_ENTITY => Ok(Err(serde_json::from_value(answer["errors"].clone())
            .unwrap_or_else(|_| vec![FieldError::new("request", detail)]))),
        _ => bail!("{url} answers {status}: {detail}"),
    }
}

/// Takes the name of the cluster that is there out of the request.
fn take_names(fields: &mut Map<String, Value>) -> Result<(names::Tenant, names::Service), Vec<FieldError>> {
    // Checked here: nothing in a name may cut off what makes this a rehearsal.
    match (take(fields, "user", names::Tenant::parse), take(fields, "service_name", names::Service::parse)) {
        (Ok(user), Ok(service)) => Ok((user, service)),
        (user, service) => Err([user.err(), service.err()].into_iter().flatten().collect()),
    }
}

fn take<T>(
    fields: &mut Map<String, Value>,
    field: &str,
    parse: impl FnOnce(&str) -> Result<T, NameError>,
) -> Result<T, FieldError> {
    match fields.remove(field) {
        Some(Value::String(name)) => parse(&name).map_err(|error| FieldError::new(field, error.to_string())),
        Some(_) => Err(FieldError::new(field, "must be a string")),
        None => Err(FieldError::new(field, "is required: name the cluster that is there")),
    }
}

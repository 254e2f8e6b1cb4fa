//! `cairn plan`: from flags or a file, against a running engine or a cluster.

use std::{io::Read as _, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use cairn_engine::{ResourceName, Tenant};
use cairn_steps::{
    names,
    render::{Marks, Through, render},
    request::{FieldError, Request},
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{NOBODYS, Quota, of_creation, print};
use crate::{
    cluster, command,
    config::{PlanArgs, RequestArgs},
};

/// The longest that an engine may take for its answer: it asks its cluster a hundred times.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// Prints the plan, and gives 1 if it would not work out, 2 if the request is wrong.
///
/// # Errors
/// If there is no plan to be had.
pub(crate) async fn run(args: PlanArgs) -> anyhow::Result<ExitCode> {
    let body = body(&args.request)?;
    let planned = match &args.server {
        Some(url) => from_server(url, &args, body).await?,
        None => directly(&args, &body).await?,
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

/// The request: the file's fields, with the flags laid over them.
fn body(args: &RequestArgs) -> anyhow::Result<Value> {
    let mut body = match args.file.as_deref() {
        None => Map::new(),
        Some(path) => {
            let mut text = String::new();
            if path == Path::new("-") {
                std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
            } else {
                text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            }
            match serde_json::from_str(&text) {
                Ok(Value::Object(fields)) => fields,
                Ok(_) => bail!("{}: a request is a JSON object", path.display()),
                Err(error) => bail!("{}: it is no JSON: {error}", path.display()),
            }
        }
    };
    body.extend(args.fields());
    Ok(Value::Object(body))
}

async fn directly(args: &PlanArgs, body: &Value) -> anyhow::Result<Planned> {
    let settings = command::settings(&args.shared)?;
    let request = match Request::parse_with(body.to_string().as_bytes(), settings.rules.gitlab.request_rules()) {
        Ok(request) => request,
        Err(errors) => return Ok(Err(errors)),
    };
    let cluster = cluster::configured(&settings.cluster(&args.at)).await?;
    let marks = Marks { workflow: NOBODYS.to_owned() };
    let mut objects = render(&request, &settings.elastic, Through::RolloutCompleted, None, &marks);
    if let Some(overlay) = settings.load_overlay().await? {
        overlay.apply(&mut objects, &request, Through::RolloutCompleted, &marks);
    }
    let asked = request.holds().into_iter().map(|(name, amount)| (ResourceName::new(name), amount)).collect();
    let limits = settings.rules.quota(&Tenant::new(request.user.as_str()));
    let plan = of_creation(&cluster, &request, objects, Quota::new(asked, None, limits)).await;
    Ok(Ok(serde_json::to_value(plan)?))
}

async fn from_server(url: &str, args: &PlanArgs, mut body: Value) -> anyhow::Result<Planned> {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIME_MAX).build()?;
    let base = url.trim_end_matches('/');
    let mut request = if args.change || args.delete {
        // Which cluster is in the path, and nothing that could be changed.
        let fields = body.as_object_mut().context("a request is a JSON object")?;
        let mut name = |field: &str| match fields.remove(field) {
            Some(Value::String(name)) => Ok(name),
            _ => Err(anyhow::anyhow!("{field}: name the cluster that is there")),
        };
        let (user, service) = (name("user")?, name("service_name")?);
        // Checked here: nothing in a name may cut off what makes this a rehearsal.
        let user = names::Tenant::parse(&user).map_err(|error| anyhow::anyhow!("user: {error}"))?;
        let service = names::Service::parse(&service).map_err(|error| anyhow::anyhow!("service_name: {error}"))?;
        let at = format!("{base}/clusters/{}/{}", user.as_str(), service.as_str());
        match args.delete {
            true => client.delete(format!("{at}?dry_run=true&keep_data={}", args.keep_data)),
            false => client.patch(format!("{at}?dry_run=true")).json(&body),
        }
    } else {
        client.post(format!("{base}/clusters?dry_run=true")).json(&body)
    };
    if let Some(path) = &args.token_file {
        let token = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().await.with_context(|| format!("server: {url} does not answer"))?;
    let status = answer.status();
    let text = answer.text().await.with_context(|| format!("server: {url} does not end its answer"))?;
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "detail": text }));
    match status {
        StatusCode::OK => Ok(Ok(answer)),
        StatusCode::UNPROCESSABLE_ENTITY => {
            Ok(Err(serde_json::from_value(answer["errors"].clone()).unwrap_or_default()))
        }
        _ => bail!("{url} answers {status}: {}", answer["detail"].as_str().unwrap_or("?")),
    }
}

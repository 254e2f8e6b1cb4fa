//! The HTTP contract, row by row, and everything that clients can do wrong, against the real program.
//!
//! A test has a site and a program of its own; each goes through several rows with it.

mod bad_input;
mod concurrency;
mod connections;
mod foreign;
mod lifecycle;
mod pulls;
mod submitting;
mod workflows;

use anyhow::ensure;
use cairn_tests::{client::Answer, program::CairnOptions, site::Site};
use serde_json::{Value, json};

/// A site and a program with these further arguments.
async fn started(arguments: &[&str]) -> anyhow::Result<(Site, cairn_tests::program::Cairn)> {
    let site = Site::new().await?;
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let cairn = site.cairn(CairnOptions { arguments, ..CairnOptions::default() }).await?;
    Ok((site, cairn))
}

/// A site and a program with this configuration file.
async fn configured(config: &str, options: CairnOptions) -> anyhow::Result<(Site, cairn_tests::program::Cairn)> {
    let site = Site::new().await?;
    let path = site.path("cairn.toml");
    std::fs::write(&path, config)?;
    let mut options = options;
    options.arguments.extend(["--config".to_owned(), path.display().to_string()]);
    let cairn = site.cairn(options).await?;
    Ok((site, cairn))
}

/// The least that a request needs.
fn request(user: &str, service: &str) -> Value {
    json!({ "user": user, "service_name": service })
}

/// `base` with these fields instead.
fn with(base: &Value, fields: &Value) -> Value {
    let mut request = base.clone();
    for (name, value) in fields.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
    request
}

/// It is a problem as RFC 9457 has it, with this status, and says what to do.
fn problem(answer: Answer, status: u16) -> anyhow::Result<Value> {
    let answer = answer.expect(status)?;
    ensure!(answer.header("content-type") == "application/problem+json", "{answer:?}");
    let body = answer.json()?;
    ensure!(body["status"] == status, "{body}");
    for field in ["type", "title", "detail"] {
        ensure!(body[field].as_str().is_some_and(|text| !text.is_empty()), "no {field} in {body}");
    }
    Ok(body)
}

/// Nothing was recorded: no workflow, no record, no object of anybody's.
async fn nothing_was_recorded(site: &Site, cairn: &cairn_tests::program::Cairn) -> anyhow::Result<()> {
    let listed = cairn.client.get("/workflows").await?.expect(200)?.json()?;
    ensure!(listed["workflows"] == json!([]), "{listed}");
    let records = cairn.client.get("/deployments").await?.expect(200)?.json()?;
    ensure!(records == json!([]), "{records}");
    let effects = site.sandbox.effects().await?;
    ensure!(effects == json!([]), "{effects}");
    Ok(())
}

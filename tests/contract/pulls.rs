//! `gitlab_url`: what may be pulled is, once; what may not is refused, before anything is asked or with a clean rollback.

use anyhow::ensure;
use cairn_steps::report::STATUSES;
use cairn_tests::{
    files::{Files, Page},
    program::CairnOptions,
    site::{Site, statuses},
};
use serde_json::json;

use crate::{nothing_was_recorded, problem, request, started, with};

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_points_inside_is_refused_before_anything_is_asked() -> anyhow::Result<()> {
    let (site, cairn) = started(&["--gitlab-host", "gitlab.example.com"]).await?;
    for url in [
        "https://127.0.0.1/x.yml",
        "https://localhost/x.yml",
        "https://[::1]/x.yml",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/x.yml",
        "https://0x7f000001/x.yml",
        "file:///etc/passwd",
        "http://gitlab.example.com/x.yml",
        "https://user:secret@gitlab.example.com/x.yml",
        "https://other.example.com/x.yml",
        "https://gitlab.example.com:22/x.yml",
        "gopher://gitlab.example.com/",
        "x",
        "",
    ] {
        let body = with(&request("acme", "search"), &json!({ "gitlab_url": url }));
        let answer = cairn.client.post("/clusters", &body).await?;
        ensure!(answer.wrong_fields() == ["gitlab_url"], "{url}: {answer:?}");
        ensure!(!answer.text.contains("secret"), "{answer:?}");
        problem(answer, 422)?;
    }
    nothing_was_recorded(&site, &cairn).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pulled_is_in_force_and_what_is_no_configuration_leaves_nothing() -> anyhow::Result<()> {
    let elsewhere = Files::serve(vec![("/good.yml", Page::Text("text/plain", "a: b\n".to_owned()))]).await?;
    let html = "<!DOCTYPE html><html><body>Sign in</body></html>".to_owned();
    let files = Files::serve(vec![
        ("/good.yml", Page::Text("text/plain", "indices.query.bool.max_clause_count: 2048\n".to_owned())),
        ("/moved.yml", Page::Redirect("/good.yml".to_owned())),
        ("/elsewhere.yml", Page::Redirect(elsewhere.url("/good.yml"))),
        ("/inside.yml", Page::Redirect("http://169.254.169.254/latest/meta-data/".to_owned())),
        ("/loop.yml", Page::Redirect("/loop.yml".to_owned())),
        ("/huge.yml", Page::Bytes(10 << 20)),
        ("/page.yml", Page::Text("text/html", html)),
        ("/list.yml", Page::Text("text/plain", "- a\n- b\n".to_owned())),
        ("/keys.yml", Page::Text("text/plain", "path.data: /etc\nxpack.security.enabled: false\n".to_owned())),
        ("/bomb.yml", Page::Text("text/plain", bomb())),
        ("/private.yml", Page::Status(401)),
    ])
    .await?;
    let site = Site::new().await?;
    let arguments = ["--gitlab-private-host", &files.host(), "--gitlab-allow-http"].map(str::to_owned).to_vec();
    let cairn = site.cairn(CairnOptions { arguments, ..CairnOptions::default() }).await?;

    for (place, path) in ["/good.yml", "/moved.yml"].into_iter().enumerate() {
        let body = with(&request("acme", &format!("good-{place}")), &json!({ "gitlab_url": files.url(path) }));
        let created = cairn.client.post("/clusters?wait=60s", &body).await?.expect(201)?.json()?;
        ensure!(statuses(&created["reports"]) == STATUSES, "{created}");
        let pulled = &created["reports"][2];
        ensure!(pulled["skipped"] == false && pulled["result"]["sha256"].is_string(), "{pulled}");
    }
    let objects = serde_json::Value::from(site.sandbox.objects().await?).to_string();
    ensure!(objects.contains("max_clause_count"), "the settings are not in the cluster");

    let bad = ["elsewhere", "inside", "loop", "huge", "page", "list", "keys", "bomb", "private", "absent"];
    for name in bad {
        let url = files.url(&format!("/{name}.yml"));
        let body = with(&request("acme", name), &json!({ "gitlab_url": url }));
        let failed = problem(cairn.client.post("/clusters?wait=60s", &body).await?, 500)?;
        ensure!(failed["report"]["result"]["step"] == "gitlab_pulled", "{name}: {failed}");
        ensure!(failed["report"]["result"]["left"] == json!([]), "{name}: {failed}");
    }
    ensure!(elsewhere.asked().is_empty(), "a redirect to another host was followed: {:?}", elsewhere.asked());
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

/// Nine levels of nine aliases each: 387 million words out of one kilobyte.
fn bomb() -> String {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let one = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", [one.as_str(); 9].join(",")));
    }
    text
}

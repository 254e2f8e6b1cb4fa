//! The journal of a running engine, over plain HTTP.

use std::{io::Read, time::Duration};

use url::Url;

use crate::error::ToolError;

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the engine may send nothing before it is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// The body of `GET url/journal`: one JSON commit a line.
///
/// # Errors
/// [`ToolError::Use`] for an address that is none, or that needs TLS; [`ToolError::Io`] if the engine does not answer
/// as it should.
pub(crate) fn journal(server: &str) -> Result<impl Read + 'static, ToolError> {
    let url = address(server)?;
    // A proxy of the environment is not asked: an engine listens on loopback.
    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .accept("application/x-ndjson")
        .build()
        .new_agent();
    let answer = agent.get(url.as_str()).call().map_err(|error| match error {
        ureq::Error::Io(error) => ToolError::io("read", url.as_str(), error),
        other => ToolError::io("read", url.as_str(), other),
    })?;
    let status = answer.status();
    if status.as_u16() != 200 {
        return Err(ToolError::Use(format!("{url} answered {status}: is that the address of a cairn engine?")));
    }
    Ok(answer.into_body().into_reader())
}

fn address(server: &str) -> Result<Url, ToolError> {
    let wrong = |why: String| {
        ToolError::Use(format!("--server {server}: {why}; give an address such as http://127.0.0.1:8080"))
    };
    // `127.0.0.1:8080` alone is meant as people mean it.
    let text = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let mut url = Url::parse(&text).map_err(|error| wrong(error.to_string()))?;
    match url.scheme() {
        "http" => {}
        "https" => {
            return Err(ToolError::Use(format!(
                "--server speaks plain HTTP only; for {server} use: curl -sSf {}/journal | cairn-journal verify --export -",
                server.trim_end_matches('/')
            )));
        }
        other => return Err(wrong(format!("{other} is not supported"))),
    }
    let path = format!("{}/journal", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_people_write_it() {
        for server in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "127.0.0.1:8080"] {
            assert_eq!(address(server).expect("an address").as_str(), "http://127.0.0.1:8080/journal");
        }
        assert_eq!(address("http://host/cairn").expect("an address").path(), "/cairn/journal");
    }

    #[test]
    fn tls_is_refused_with_the_way_out() {
        let error = address("https://cairn.example.com").expect_err("no TLS here");
        assert!(error.to_string().contains("curl -sSf https://cairn.example.com/journal"), "{error}");
        assert!(address("ftp://host").is_err());
        assert!(address("http://").is_err());
    }
}

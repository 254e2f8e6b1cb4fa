//! Connections that are slow, endless or too many: they are cut off, and nobody else notices.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cairn_tests::program::Cairn;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::started;

/// The longest that a slow client may be borne with, and then some.
const CUT_OFF_AFTER: Duration = Duration::from_secs(60);

async fn connect(cairn: &Cairn) -> anyhow::Result<TcpStream> {
    let address = cairn.client.url().strip_prefix("http://").context("a plain URL")?;
    Ok(TcpStream::connect(address).await?)
}

/// All that the program still says before it closes the connection.
async fn until_closed(mut stream: TcpStream) -> anyhow::Result<String> {
    let mut said = Vec::new();
    let closed = tokio::time::timeout(CUT_OFF_AFTER, stream.read_to_end(&mut said)).await;
    // A reset is an end as well.
    let _ = closed.context("the connection is still open")?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_does_not_end_and_a_body_that_does_not_come_are_cut_off() -> anyhow::Result<()> {
    let (_site, cairn) = started(&[]).await?;
    let mut silent = connect(&cairn).await?;
    silent.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n").await?;
    let mut starving = connect(&cairn).await?;
    starving
        .write_all(b"POST /clusters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        .await?;
    let idle = connect(&cairn).await?;
    let (silent, starving, idle) = tokio::try_join!(until_closed(silent), until_closed(starving), until_closed(idle))?;
    ensure!(!silent.contains("200 OK"), "{silent}");
    ensure!(starving.starts_with("HTTP/1.1 408"), "{starving}");
    ensure!(idle.is_empty() || idle.starts_with("HTTP/1.1 408"), "{idle}");
    cairn.client.get("/healthz").await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_without_end_is_cut_off_before_it_fills_the_memory() -> anyhow::Result<()> {
    let (_site, cairn) = started(&[]).await?;
    let mut stream = connect(&cairn).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n").await?;
    let line = format!("X-Long: {}\r\n", "x".repeat(8 << 10));
    for _ in 0..64 {
        // It may be cut off in the middle: that is what is wanted.
        if stream.write_all(line.as_bytes()).await.is_err() {
            break;
        }
    }
    let said = until_closed(stream).await?;
    ensure!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    cairn.client.get("/healthz").await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_http_at_all_and_requests_cut_short_harm_nobody() -> anyhow::Result<()> {
    let (_site, cairn) = started(&[]).await?;
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..], b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0", b"POST /clu"] {
        let mut stream = connect(&cairn).await?;
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        let said = until_closed(stream).await?;
        ensure!(!said.contains("200 OK"), "{said}");
    }
    cairn.client.get("/healthz").await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_there_may_be_are_told_so_and_it_is_over_when_they_end() -> anyhow::Result<()> {
    let (_site, cairn) = started(&["--connections", "8"]).await?;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(connect(&cairn).await?);
    }
    // Whoever comes last is answered at once.
    let said = until_closed(open.pop().context("sixteen of them")?).await?;
    ensure!(said.starts_with("HTTP/1.1 503") && said.to_lowercase().contains("retry-after"), "{said}");
    drop(open);
    cairn.client.ready(cairn_tests::program::DEADLINE).await
}

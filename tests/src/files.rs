//! A host of files on loopback, for what the engine pulls: it answers each path as it is told to, and says what was asked.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// What a path is answered with.
#[derive(Clone, Debug)]
pub enum Page {
    /// 200 and this text, as this content type.
    Text(&'static str, String),
    /// 302 to there.
    Redirect(String),
    /// Nothing but this status.
    Status(u16),
    /// 200 and so many bytes.
    Bytes(usize),
}

/// The host. It ends when it is dropped.
pub struct Files {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Files {
    /// Serves these pages on a free port; any other path is answered 404.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn serve(pages: Vec<(&'static str, Page)>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let pages = Arc::new(pages);
        let serving = tokio::spawn({
            let asked = Arc::clone(&asked);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (pages, asked) = (Arc::clone(&pages), Arc::clone(&asked));
                    tokio::spawn(async move { drop(answer(stream, &pages, &asked).await) });
                }
            }
        });
        Ok(Self { port, asked, serving })
    }

    /// `HOST:PORT`, as an allow-list has it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of this path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    /// The paths that were asked for, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(stream: TcpStream, pages: &[(&str, Page)], asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    // The rest of the head is of no interest, but has to be read before it can be answered.
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 2 {
        line.clear();
    }
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    let page = pages.iter().find(|(known, _)| *known == path).map(|(_, page)| page.clone());
    let (head, body) = match page.unwrap_or(Page::Status(404)) {
        Page::Text(kind, text) => (format!("200 OK\r\ncontent-type: {kind}"), text.into_bytes()),
        Page::Redirect(to) => (format!("302 Found\r\nlocation: {to}"), Vec::new()),
        Page::Status(status) => (format!("{status} As told"), Vec::new()),
        Page::Bytes(count) => ("200 OK\r\ncontent-type: text/plain".to_owned(), vec![b'#'; count]),
    };
    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

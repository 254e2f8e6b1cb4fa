//! The ten-step workflow of `load`, as a service of Restate: each step does nothing, and its output of about 300 bytes is
//! recorded before the next one begins.

use std::net::{Ipv4Addr, SocketAddr};

use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const STEPS: usize = 10;

struct TenSteps;

#[restate_sdk::service]
impl TenSteps {
    #[handler]
    async fn run(&self, context: Context<'_>, _: Json<Value>) -> HandlerResult<String> {
        for step in 0..STEPS {
            context.run(|| async { Ok(Json(made())) }).name(format!("step_{step}")).await?;
        }
        Ok("completed".to_owned())
    }
}

/// The same as what `load` has its steps tell: half words that repeat, half numbers that nobody can guess.
fn made() -> Vec<Made> {
    let each = |kind: &str| {
        let drawn: u128 = rand::random();
        Made { kind: kind.to_owned(), uid: format!("{drawn:032x}"), version: drawn as u16 }
    };
    ["Service", "ConfigMap", "StatefulSet", "Deployment"].map(each).into()
}

#[derive(Serialize, Deserialize)]
struct Made {
    kind: String,
    uid: String,
    version: u16,
}

#[tokio::main]
async fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let port: u16 = port.expect("the port to listen at is the one argument");
    let endpoint = Endpoint::builder().bind(TenSteps).build();
    HttpServer::new(endpoint).listen_and_serve(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
}

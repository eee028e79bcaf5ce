use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::Program;

const VERIFIED_TIMEOUT: Duration = Duration::from_secs(30);

/// A running Sign Gateway.
pub struct Gateway {
    /// Its process.
    pub program: Program,
    /// Of its HTTP API, for example `http://127.0.0.1:8080`.
    pub url: String,
}

/// An answer of the HTTP API.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// The body.
    pub body: Value,
}

impl Gateway {
    pub(crate) fn start(mut program: Program) -> Result<Self> {
        let ready = program.ready()?;
        let address = ready["address"].as_str().context("the gateway printed no address")?;
        Ok(Self { url: format!("http://{address}"), program })
    }

    /// Waits until the gateway has verified its only node, and returns what it says of it.
    pub fn wait_verified(&self) -> Result<Value> {
        let deadline = Instant::now() + VERIFIED_TIMEOUT;
        loop {
            let nodes = self.nodes()?;
            match nodes[0]["state"].as_str() {
                Some("verified") => return Ok(nodes[0].clone()),
                _ if Instant::now() > deadline => bail!("the gateway did not verify the node: {nodes}"),
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// `GET /v1/nodes`.
    pub fn nodes(&self) -> Result<Value> {
        Ok(agent().get(format!("{}/v1/nodes", self.url)).call()?.body_mut().read_json()?)
    }

    /// `POST /v1/sign`.
    pub fn sign(&self, account: &str, message: &[u8]) -> Result<Answer> {
        let body = json!({"account": account, "message": hex::encode(message)});
        let mut answer = agent().post(format!("{}/v1/sign", self.url)).send_json(body)?;
        Ok(Answer { code: answer.status().as_u16(), body: answer.body_mut().read_json()? })
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into()
}

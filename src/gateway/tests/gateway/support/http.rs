use std::time::Duration;

use serde_json::Value;

/// An answer of the HTTP API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// The code of an error answer.
    pub(crate) fn error(&self) -> (u16, &str) {
        (self.code, self.body["error"].as_str().unwrap())
    }

    pub(crate) fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap()
    }
}

pub(crate) async fn get(url: &str) -> Answer {
    let url = url.to_owned();
    blocking(move |agent| agent.get(url).call().unwrap()).await
}

pub(crate) async fn post(url: &str, body: &str) -> Answer {
    post_with_header(url, body, ("accept", "application/json")).await
}

pub(crate) async fn post_with_header(url: &str, body: &str, header: (&'static str, &'static str)) -> Answer {
    let (url, body) = (url.to_owned(), body.to_owned());
    blocking(move |agent| agent.post(url).header(header.0, header.1).send(body).unwrap()).await
}

type Response = ureq::http::Response<ureq::Body>;

async fn blocking(call: impl FnOnce(ureq::Agent) -> Response + Send + 'static) -> Answer {
    let answer = tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        let mut response = call(agent.into());
        Answer { code: response.status().as_u16(), body: response.body_mut().read_json().unwrap() }
    });
    answer.await.unwrap()
}

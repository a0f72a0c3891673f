//! The way to the server: the HTTP client and the TLS that the rest of the program uses.

use axum::body::Bytes;
use axum::http::{Method, Request, Response, header};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::redirect::Policy;
use std::pin::Pin;
use std::time::Duration;

/// For a whole request.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(super) struct Http(reqwest::Client);

impl Http {
    pub(super) fn new() -> anyhow::Result<Self> {
        // Requests are signed for the URL that they go to.
        Ok(Self(reqwest::Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build()?))
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let method = request.method().clone();
        let failed = |error: reqwest::Error| Error::Other(Box::new(error));
        let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap)).map_err(failed)?;
        let response = self.0.execute(request).await.map_err(failed)?;
        let (status, url) = (response.status(), response.url().clone());
        if !(status.is_success() || is_problem(&method, &response)) {
            return Err(Error::Other(format!("{url} answered {status}").into()));
        }
        Ok(BytesResponse::from(Response::<reqwest::Body>::from(response)))
    }
}

/// Whether a refusal says in ACME's own words what is wrong.
fn is_problem(method: &Method, response: &reqwest::Response) -> bool {
    let content = response.headers().get(header::CONTENT_TYPE).and_then(|content| content.to_str().ok());
    *method == Method::POST && content.is_some_and(|content| content.contains("json"))
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().exchange(request))
    }
}

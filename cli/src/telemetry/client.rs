//! One request to the collector.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cogo::error::chain;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, ResponseBodyTooLarge};

use super::queue::Trouble;
use super::settings::Settings;

/// The longest answer that is read: a collector says only what it refused.
const MAX_ANSWER: usize = 64 * 1024;

/// reqwest, which says why a request failed and sends the headers, which hold keys, nowhere else.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    trouble: Trouble,
}

impl Client {
    pub(super) fn new(settings: &Settings, trouble: Trouble) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .timeout(settings.timeout)
            .connect_timeout(settings.timeout.min(Duration::from_secs(5)))
            .redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = &settings.certificates {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .context("reading the certificates of OTEL_EXPORTER_OTLP_CERTIFICATE")?;
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder.build().context("setting up the export of traces")?;
        Ok(Self { http, trouble })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut answer = self.http.execute(request.try_into()?).await?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            *headers = std::mem::take(answer.headers_mut());
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Box::new(ResponseBodyTooLarge::new()));
            }
            body.extend_from_slice(&chunk);
        }
        if !answer.status().is_success() {
            self.trouble.is(format!("it answers {}", answer.status()));
        }
        Ok(response.body(body.into())?)
    }
}

impl HttpClient for Client {
    // As the trait's macro would write it.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.send(request).await.map_err(|error| {
                // Without the address, which may have a password in it.
                match error.downcast::<reqwest::Error>() {
                    Ok(error) => {
                        let error = error.without_url();
                        self.trouble.is(chain(&error).to_string());
                        Box::new(error) as HttpError
                    }
                    Err(error) => {
                        self.trouble.is(error.to_string());
                        error
                    }
                }
            })
        })
    }
}

//! A StoreAPI client that keeps all it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger::net::grpc::{CallOptions, Client, Status};
use outrigger::proto::thanos::series_response::Result as Message;
use outrigger::proto::thanos::{Label, LabelMatcher, Series, SeriesRequest, SeriesResponse};
use prost::Message as _;
use tokio::runtime::{Builder, Runtime};

/// A connection to a StoreAPI server.
pub(crate) struct StoreClient {
    runtime: Runtime,
    client: Arc<Client>,
}

/// All that a Series call said, whether or not it ended well.
#[derive(Debug, Default)]
pub(crate) struct SeriesAnswer {
    pub(crate) series: Vec<Series>,
    pub(crate) warnings: Vec<String>,
    /// How many series each message had that was a batch.
    pub(crate) batches: Vec<usize>,
    /// Messages with one series.
    pub(crate) singles: usize,
    pub(crate) failure: Option<Status>,
}

impl StoreClient {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime
            .block_on(Client::connect(&address.to_string(), None))
            .unwrap();
        Self {
            runtime,
            client: Arc::new(client),
        }
    }

    /// A Series call that ended well.
    pub(crate) fn series(&self, request: &SeriesRequest) -> SeriesAnswer {
        let answer = self.try_series(request);
        assert_eq!(answer.failure, None, "{request:?}");
        answer
    }

    pub(crate) fn try_series(&self, request: &SeriesRequest) -> SeriesAnswer {
        self.series_within(request, Duration::from_secs(60))
    }

    pub(crate) fn series_within(&self, request: &SeriesRequest, timeout: Duration) -> SeriesAnswer {
        self.runtime
            .block_on(series(&self.client, request, timeout))
    }

    /// Several Series calls at once, answered in the order of the requests.
    pub(crate) fn at_once(&self, requests: Vec<SeriesRequest>) -> Vec<SeriesAnswer> {
        self.runtime.block_on(async {
            let mut calls = tokio::task::JoinSet::new();
            for (at, request) in requests.into_iter().enumerate() {
                let client = Arc::clone(&self.client);
                let timeout = Duration::from_secs(60);
                calls.spawn(async move { (at, series(&client, &request, timeout).await) });
            }
            let mut answers = calls.join_all().await;
            answers.sort_by_key(|(at, _)| *at);
            answers.into_iter().map(|(_, answer)| answer).collect()
        })
    }

    pub(crate) fn unary<M: prost::Message + Default>(
        &self,
        path: &str,
        request: &impl prost::Message,
    ) -> Result<M, Status> {
        let body = request.encode_to_vec();
        let asking = self
            .client
            .unary(path, &body, options(Duration::from_secs(60)));
        self.runtime
            .block_on(asking)
            .map(|answer| M::decode(answer).unwrap())
    }
}

fn options(timeout: Duration) -> CallOptions {
    CallOptions {
        timeout: Some(timeout),
        message_bytes_max: 64 << 20,
        ..CallOptions::default()
    }
}

async fn series(client: &Client, request: &SeriesRequest, timeout: Duration) -> SeriesAnswer {
    let mut answer = SeriesAnswer::default();
    let body = request.encode_to_vec();
    let calling = client.server_streaming("/thanos.Store/Series", &body, options(timeout));
    let mut messages = match calling.await {
        Ok(messages) => messages,
        Err(status) => {
            answer.failure = Some(status);
            return answer;
        }
    };
    loop {
        match messages.message().await {
            Ok(Some(message)) => answer.take(SeriesResponse::decode(message).unwrap()),
            Ok(None) => return answer,
            Err(status) => {
                answer.failure = Some(status);
                return answer;
            }
        }
    }
}

impl SeriesAnswer {
    fn take(&mut self, response: SeriesResponse) {
        match response.result.unwrap() {
            Message::Series(series) => {
                self.singles += 1;
                self.series.push(series);
            }
            Message::Batch(batch) => {
                self.batches.push(batch.series.len());
                self.series.extend(batch.series);
            }
            Message::Warning(warning) => self.warnings.push(warning),
            Message::Hints(hints) => panic!("{hints:?}"),
        }
    }
}

/// A matcher; `op` as PromQL writes it.
pub(crate) fn matcher(name: &str, op: &str, value: &str) -> LabelMatcher {
    let ops = ["=", "!=", "=~", "!~"];
    let kind = ops.iter().position(|known| *known == op).unwrap();
    LabelMatcher {
        r#type: i32::try_from(kind).unwrap(),
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// Name and value of each.
pub(crate) fn pairs(labels: &[Label]) -> Vec<(String, String)> {
    let pairs = labels.iter();
    pairs
        .map(|label| (label.name.to_string(), label.value.to_string()))
        .collect()
}

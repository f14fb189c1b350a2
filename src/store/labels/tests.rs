//! Label names and values against a scripted Prometheus.

use futures_util::future::poll_immediate;

use super::*;
use crate::store::gate::{WAITING_WHOLE_ANSWERS_MAX, WHOLE_ANSWERS_MAX};
use crate::store::testing::{Fake, Script, matcher, pairs, range};
use crate::store::{Config, ErrorClass};

fn owned(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

fn fake() -> Fake {
    let values = (owned(&["b", "a"]), Vec::new());
    Fake::new(Script {
        series: vec![(pairs(&[("job", "x")]), 1)],
        names: owned(&["job", "cluster", "__name__"]),
        values: [("job".to_owned(), values)].into(),
        warnings: owned(&["w"]),
        ..Script::default()
    })
}

fn store(fake: &Fake) -> Store<Fake> {
    fake.store(
        Config::default(),
        &[("cluster", "eu"), ("empty", ""), ("replica", "r")],
    )
}

#[tokio::test]
async fn names_have_the_external_ones_once() {
    let fake = fake();
    let store = store(&fake);
    let request = LabelNamesRequest {
        end: 100,
        without_replica_labels: owned(&["replica"]),
        ..LabelNamesRequest::default()
    };
    let response = store.label_names(request.clone()).await.unwrap();
    assert_eq!(response.names, ["__name__", "cluster", "empty", "job"]);
    assert_eq!(response.warnings, ["w"]);

    let limited = LabelNamesRequest {
        limit: 2,
        without_replica_labels: Vec::new(),
        matchers: vec![matcher("cluster", "eu"), matcher("job", "x")],
        ..request.clone()
    };
    let response = store.label_names(limited).await.unwrap();
    let expected = ["__name__", "cluster", "empty", "replica"];
    assert_eq!(
        response.names, expected,
        "external ones are beyond the limit"
    );
    let asked = fake.lists.lock().unwrap().pop().unwrap().1;
    assert_eq!(asked.limit, Some(2));
    assert_eq!(asked.matchers.len(), 1);

    fake.script.lock().unwrap().names.clear();
    assert!(
        store
            .label_names(request.clone())
            .await
            .unwrap()
            .names
            .is_empty()
    );

    fake.lists.lock().unwrap().clear();
    let miss = LabelNamesRequest {
        matchers: vec![matcher("cluster", "us")],
        ..request.clone()
    };
    let inverted = LabelNamesRequest {
        start: 101,
        ..request
    };
    for request in [miss, inverted] {
        let response = store.label_names(request).await.unwrap();
        assert_eq!(response, LabelNamesResponse::default());
    }
    assert!(fake.lists.lock().unwrap().is_empty());
}

#[tokio::test]
async fn values_of_inner_labels() {
    let fake = fake();
    let store = store(&fake);
    let request = LabelValuesRequest {
        label: "job".to_owned(),
        start: i64::MIN,
        end: i64::MAX,
        ..LabelValuesRequest::default()
    };
    let response = store.label_values(request.clone()).await.unwrap();
    assert_eq!(response.values, ["a", "b"]);
    assert_eq!(response.warnings, ["w"]);
    let asked = fake.lists.lock().unwrap().pop().unwrap().1;
    assert_eq!(asked.range, Some(range(i64::MIN, i64::MAX)));

    let limited = LabelValuesRequest {
        limit: 1,
        ..request.clone()
    };
    let response = store.label_values(limited).await.unwrap();
    assert_eq!(response.values, ["a"]);

    let without = LabelValuesRequest {
        without_replica_labels: owned(&["job"]),
        ..request.clone()
    };
    let response = store.label_values(without).await.unwrap();
    assert_eq!(response, LabelValuesResponse::default());

    let unnamed = LabelValuesRequest {
        label: String::new(),
        ..request
    };
    let error = store.label_values(unnamed).await.unwrap_err();
    assert_eq!(error.to_string(), "label name parameter cannot be empty");
    assert_eq!(error.class(), ErrorClass::InvalidArgument);
}

#[tokio::test]
async fn the_value_of_an_external_label() {
    let fake = fake();
    let store = store(&fake);
    let request = |matchers: Vec<_>| LabelValuesRequest {
        label: "cluster".to_owned(),
        start: 7,
        end: 100,
        matchers,
        ..LabelValuesRequest::default()
    };
    // Without matchers of Prometheus' own nothing is asked, whatever the time.
    for matchers in [vec![], vec![matcher("replica", "r")]] {
        let inverted = LabelValuesRequest {
            end: 0,
            ..request(matchers)
        };
        let response = store.label_values(inverted).await.unwrap();
        assert_eq!(response.values, ["eu"]);
    }
    assert!(fake.lists.lock().unwrap().is_empty());

    let job = || request(vec![matcher("job", "x")]);
    let response = store.label_values(job()).await.unwrap();
    assert_eq!(response.values, ["eu"]);
    let (what, asked) = fake.lists.lock().unwrap().pop().unwrap();
    assert_eq!((what.as_str(), asked.limit), ("series", Some(1)));
    assert_eq!(asked.range, Some(range(7, 100)));

    fake.script.lock().unwrap().series.clear();
    let response = store.label_values(job()).await.unwrap();
    assert!(response.values.is_empty());
    let miss = request(vec![matcher("replica", "q")]);
    let response = store.label_values(miss).await.unwrap();
    assert!(response.values.is_empty());
}

#[tokio::test]
async fn only_few_lists_are_asked_for_at_a_time() {
    let fake = fake();
    let store = store(&fake);
    let mut running = Vec::new();
    for _ in 0..WHOLE_ANSWERS_MAX {
        running.push(store.whole_answers().enter().await.unwrap());
    }
    let names = || LabelNamesRequest {
        end: 100,
        ..LabelNamesRequest::default()
    };
    let values = LabelValuesRequest {
        label: "job".to_owned(),
        end: 100,
        ..LabelValuesRequest::default()
    };
    let mut waiting: Vec<_> = (1..WAITING_WHOLE_ANSWERS_MAX)
        .map(|_| Box::pin(store.label_names(names())))
        .collect();
    let mut last = Box::pin(store.label_values(values));
    for call in &mut waiting {
        assert!(poll_immediate(call).await.is_none());
    }
    assert!(poll_immediate(&mut last).await.is_none());
    assert!(fake.lists.lock().unwrap().is_empty(), "nothing is asked");
    let error = store.label_names(names()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::ResourceExhausted);
    assert!(error.to_string().contains("8 run and 256 wait"), "{error}");
    drop(running);
    for call in waiting {
        call.await.unwrap();
    }
    assert_eq!(last.await.unwrap().values, ["a", "b"]);
}

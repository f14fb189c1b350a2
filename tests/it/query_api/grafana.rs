//! What Grafana's Prometheus data source asks: its health check, and what its editors and panels
//! send.

use serde_json::Value;

use super::{Ask, INSTANT_S, Stand, encoded};

#[test]
fn the_requests_of_grafanas_data_source_are_answered() {
    let stand = Stand::start(&[]);
    let (start, end) = (INSTANT_S, INSTANT_S + 600);
    let answered = |ask: &Ask| {
        let answered = stand.ours(ask);
        assert_eq!(answered.status, 200, "{ask:?}: {answered:?}");
        let json = answered.json();
        assert_eq!(json["status"], "success");
        json["data"].clone()
    };
    // Save & test.
    let health = Ask::post("/api/v1/query", format!("query=1%2B1&time={start}"));
    assert_eq!(answered(&health)["result"][1], "2");
    let build = answered(&Ask::get("/api/v1/status/buildinfo"));
    assert!(build["version"].is_string());
    // The query editor.
    let names = answered(&Ask::get(format!("/api/v1/labels?start={start}&end={end}")));
    assert!(names.as_array().unwrap().contains(&"cluster".into()));
    let selector = encoded("{__name__=\"http_requests_total\",cluster=\"eu-1\"}");
    let ask = format!("/api/v1/label/job/values?start={start}&end={end}&match[]={selector}");
    assert_eq!(answered(&Ask::get(ask)), Value::from(vec!["node"]));
    let ask = format!("/api/v1/label/__name__/values?start={start}&end={end}");
    assert_eq!(
        answered(&Ask::get(ask)),
        Value::from(vec!["http_requests_total"])
    );
    let form = format!("match[]={selector}&start={start}&end={end}");
    let series = answered(&Ask::post("/api/v1/series", form));
    assert_eq!(series[0]["cluster"], "eu-1");
    let metadata = answered(&Ask::get("/api/v1/metadata?limit=40000"));
    assert!(metadata["go_goroutines"].is_array());
    // Alerting's list, annotations, explore.
    let rules = answered(&Ask::get("/api/v1/rules"));
    assert_eq!(rules["groups"][0]["rules"][0]["labels"]["cluster"], "eu-1");
    let form = format!("query=up&start={start}&end={end}");
    assert!(answered(&Ask::post("/api/v1/query_exemplars", form)).is_array());
    let expression = encoded("sum by (cluster, job) (rate(http_requests_total[5m]))");
    let form = format!("query={expression}&start={start}&end={end}&step=15&timeout=60s");
    let data = answered(&Ask::post("/api/v1/query_range", form));
    assert_eq!(data["resultType"], "matrix");
    let metric = &data["result"][0]["metric"];
    assert_eq!(
        (&metric["cluster"], &metric["job"]),
        (&"eu-1".into(), &"node".into())
    );
    assert_eq!(data["result"][0]["values"].as_array().unwrap().len(), 41);
    // A newer one asks for what this Prometheus may lack; it is told so in the API's form.
    let ask = Ask::get("/api/v1/parse_query?query=up");
    let (ours, theirs) = (stand.ours(&ask), stand.theirs(&ask));
    assert_eq!(ours.status, theirs.status);
}

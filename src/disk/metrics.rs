//! What `/metrics` tells of the disk engine.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::EngineInfo;

/// Tells which engine is in use and why: `outrigger_io_engine_info{engine,reason}`, always 1.
pub fn register_engine_info(info: &EngineInfo, registry: &mut Registry) {
    let family: Family<Vec<(String, String)>, Gauge> = Family::default();
    let labels = vec![
        ("engine".to_owned(), info.engine.to_owned()),
        ("reason".to_owned(), info.reason.clone()),
    ];
    family.get_or_create(&labels).set(1);
    registry.register(
        "outrigger_io_engine_info",
        "Which way files are read, and why: as requested, as probed, or the error of io_uring",
        family,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_and_the_reason_are_labels() {
        let mut registry = Registry::default();
        let info = EngineInfo {
            engine: "pread",
            reason: "EPERM".to_owned(),
        };
        register_engine_info(&info, &mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = "outrigger_io_engine_info{engine=\"pread\",reason=\"EPERM\"} 1";
        assert!(text.contains(line), "{text}");
    }
}

//! Metrics of the process itself: `process_*` from `/proc`, and what the binary was built from
//! (contract `metrics.md` §1).

use procfs::process::{LimitValue, Process};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

/// Reads `/proc/self` at each scrape. What can't be read there is left out of that scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessCollector;

/// The labels of `thanos_build_info`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BuildInfo {
    /// The branch it was built from.
    pub branch: String,
    /// The architecture by Go's name.
    pub goarch: String,
    /// The system by Go's name.
    pub goos: String,
    /// The compiler; the label's name is the reference's.
    pub goversion: String,
    /// The revision it was built from.
    pub revision: String,
    /// Features built in.
    pub tags: String,
    /// The version.
    pub version: String,
}

// === impl BuildInfo ===

impl BuildInfo {
    /// Registers `thanos_build_info`, constantly 1.
    pub fn register(self, registry: &mut Registry) {
        let family = Family::<Self, Gauge>::default();
        family.get_or_create(&self).set(1);
        registry.register(
            "thanos_build_info",
            "Constantly 1, labelled by what this binary was built from",
            family,
        );
    }
}

// === impl ProcessCollector ===

impl ProcessCollector {
    /// Registers all of `process_*`.
    pub fn register(self, registry: &mut Registry) {
        registry.register_collector(Box::new(self));
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Ok(process) = Process::myself() else {
            return Ok(());
        };
        let mut metrics = Metrics(&mut encoder);
        metrics.stat(&process)?;
        if let Ok(open) = process.fd_count() {
            metrics.gauge(
                "process_open_fds",
                "Open file descriptors",
                as_float(open as u64),
            )?;
        }
        if let Ok(limits) = process.limits() {
            let max_fds = limit(&limits.max_open_files.soft_limit);
            metrics.gauge("process_max_fds", "Limit of open file descriptors", max_fds)?;
            let max_memory = limit(&limits.max_address_space.soft_limit);
            let help = "Limit of virtual memory, in bytes";
            metrics.gauge("process_virtual_memory_max_bytes", help, max_memory)?;
        }
        metrics.network()
    }
}

struct Metrics<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Metrics<'_, '_> {
    fn stat(&mut self, process: &Process) -> Result<(), std::fmt::Error> {
        let Ok(stat) = process.stat() else {
            return Ok(());
        };
        let ticks_per_second = as_float(procfs::ticks_per_second());
        let cpu = as_float(stat.utime.saturating_add(stat.stime)) / ticks_per_second;
        self.counter(
            "process_cpu_seconds",
            "User and system CPU time spent, in seconds",
            cpu,
        )?;
        let resident = stat.rss.saturating_mul(procfs::page_size());
        self.gauge(
            "process_resident_memory_bytes",
            "Resident memory, in bytes",
            as_float(resident),
        )?;
        self.gauge(
            "process_virtual_memory_bytes",
            "Virtual memory, in bytes",
            as_float(stat.vsize),
        )?;
        let Ok(boot) = procfs::boot_time_secs() else {
            return Ok(());
        };
        let started = as_float(boot) + as_float(stat.starttime) / ticks_per_second;
        let help = "When the process started, in seconds since the Unix epoch";
        self.gauge("process_start_time_seconds", help, started)
    }

    /// Octets of the network namespace, which in a pod is that of all its containers.
    fn network(&mut self) -> Result<(), std::fmt::Error> {
        let Ok(text) = std::fs::read_to_string("/proc/self/net/netstat") else {
            return Ok(());
        };
        if let Some(received) = ip_octets(&text, "InOctets") {
            let help = "Bytes received over the network in this network namespace";
            self.counter("process_network_receive_bytes", help, as_float(received))?;
        }
        if let Some(sent) = ip_octets(&text, "OutOctets") {
            let help = "Bytes sent over the network in this network namespace";
            self.counter("process_network_transmit_bytes", help, as_float(sent))?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), std::fmt::Error> {
        self.encode(name, help, &ConstGauge::new(value))
    }

    /// The name is without `_total`.
    fn counter(&mut self, name: &str, help: &str, value: f64) -> Result<(), std::fmt::Error> {
        self.encode(name, help, &ConstCounter::new(value))
    }

    fn encode(
        &mut self,
        name: &str,
        help: &str,
        metric: &impl EncodeMetric,
    ) -> Result<(), std::fmt::Error> {
        // The full stop is what the renderer takes away again.
        let help = format!("{help}.");
        let encoder = self
            .0
            .encode_descriptor(name, &help, None, metric.metric_type())?;
        metric.encode(encoder)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "expositions are made of floats, also in the reference"
)]
fn as_float(value: u64) -> f64 {
    value as f64
}

/// Unlimited is told as the largest number, as the reference does.
fn limit(value: &LimitValue) -> f64 {
    match value {
        LimitValue::Unlimited => as_float(u64::MAX),
        LimitValue::Value(value) => as_float(*value),
    }
}

/// A counter of the `IpExt` group: a line of names and, after it, a line of values.
fn ip_octets(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("IpExt:"));
    let names = lines.next()?.split_ascii_whitespace();
    let mut values = lines.next()?.split_ascii_whitespace();
    let at = names.into_iter().position(|known| known == name)?;
    values.nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use procfs::{Current as _, Uptime};

    use super::*;
    use crate::api::{Format, render};

    fn rendered() -> String {
        let mut registry = Registry::default();
        ProcessCollector.register(&mut registry);
        render(&registry, Format::Text).unwrap().text
    }

    fn value(text: &str, name: &str) -> f64 {
        let prefix = format!("{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("{name} in {text}"))
            .parse()
            .unwrap()
    }

    #[test]
    fn the_process_is_told_as_it_is() {
        let text = rendered();
        assert!(value(&text, "process_resident_memory_bytes") > 1e6);
        assert!(
            value(&text, "process_virtual_memory_bytes")
                > value(&text, "process_resident_memory_bytes")
        );
        assert!(value(&text, "process_open_fds") >= 3.0);
        assert!(value(&text, "process_max_fds") >= value(&text, "process_open_fds"));
        assert!(value(&text, "process_virtual_memory_max_bytes") > 0.0);
        assert!(value(&text, "process_network_receive_bytes_total") >= 0.0);
        assert!(value(&text, "process_network_transmit_bytes_total") >= 0.0);
        let booted = as_float(procfs::boot_time_secs().unwrap());
        let up = Uptime::current().unwrap().uptime;
        let age = booted + up - value(&text, "process_start_time_seconds");
        assert!((-2.0..3600.0 * 24.0).contains(&age), "{age}");
        let before = value(&text, "process_cpu_seconds_total");
        let mut spin = 0_u64;
        while value(&rendered(), "process_cpu_seconds_total") <= before {
            spin = std::hint::black_box(spin.wrapping_add(1));
        }
    }

    #[test]
    fn octets_are_found_by_name() {
        let text =
            "TcpExt: InOctets\nTcpExt: 9\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 12 34\n";
        assert_eq!(ip_octets(text, "InOctets"), Some(12));
        assert_eq!(ip_octets(text, "OutOctets"), Some(34));
        assert_eq!(ip_octets(text, "Other"), None);
        assert_eq!(ip_octets("IpExt: InOctets\n", "InOctets"), None);
        assert_eq!(ip_octets("", "InOctets"), None);
    }

    #[test]
    fn build_information_is_one_series() {
        let info = BuildInfo {
            branch: "main".to_owned(),
            goarch: "amd64".to_owned(),
            goos: "linux".to_owned(),
            goversion: "rustc 1.95.0".to_owned(),
            revision: "abc".to_owned(),
            tags: String::new(),
            version: "0.42.4".to_owned(),
        };
        let mut registry = Registry::default();
        info.register(&mut registry);
        let text = render(&registry, Format::Text).unwrap().text;
        let expected = "thanos_build_info{branch=\"main\",goarch=\"amd64\",goos=\"linux\",\
            goversion=\"rustc 1.95.0\",revision=\"abc\",tags=\"\",version=\"0.42.4\"} 1\n";
        assert!(text.ends_with(expected), "{text}");
    }
}

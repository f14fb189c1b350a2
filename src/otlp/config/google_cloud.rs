//! `type: GOOGLE_CLOUD` and `STACKDRIVER`, refused: Google takes OTLP only with tokens of its own,
//! which a collector beside us can get and renew.

use super::keys;
use crate::model::{DocumentError, Mapping};
use crate::otlp::error::TracingConfigError;

const WHY: &str = "spans for Cloud Trace need Google's credentials, which are not read here";

/// What to write instead, with what `config` says.
pub(super) fn refuse(mut config: Mapping<'_>, given: &str) -> TracingConfigError {
    match remedy(&mut config) {
        Ok(remedy) => TracingConfigError::Refused {
            what: format!("`type` is {given}"),
            why: WHY,
            remedy,
        },
        Err(error) => error.into(),
    }
}

fn remedy(config: &mut Mapping<'_>) -> Result<String, DocumentError> {
    let service = config.text("service_name")?;
    let project = config.text("project_id")?;
    let factor = config
        .integer("sample_factor", "a whole number")?
        .unwrap_or(0);
    let sampler = match factor {
        ..=0 => "parentbasedneversample".to_owned(),
        factor => {
            let factor = keys::fraction_of(factor);
            format!("parentbasedtraceidratiobased, sampler_param: \"{factor}\"")
        }
    };
    Ok(format!(
        "run an OpenTelemetry collector with the exporter `googlecloud` (project {:?}), and write \
         `type: OTLP` with `config: {{client_type: grpc, endpoint: \"localhost:4317\", insecure: \
         true, service_name: {:?}, sampler_type: {sampler}}}`",
        project.unwrap_or_default(),
        service.unwrap_or_default(),
    ))
}

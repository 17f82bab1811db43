//! Certificates in a backend: DER in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Stored, WireError, read, write};
use crate::certificate::{MAX_CERTIFICATE_BYTES, MAX_INTERMEDIATES, StoredCertificate};

#[derive(Serialize, Deserialize)]
struct CertificateForm {
    certificate: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    intermediates: Vec<String>,
}

impl Stored for StoredCertificate {
    const WHAT: &'static str = "a certificate";

    fn to_body(&self) -> String {
        let intermediates = self.intermediates.iter().map(|der| STANDARD.encode(der)).collect();
        write(&CertificateForm { certificate: STANDARD.encode(&self.certificate), intermediates })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: CertificateForm = read(Self::WHAT, body)?;
        if form.intermediates.len() > MAX_INTERMEDIATES {
            let detail = format!("it has {} intermediate certificates", form.intermediates.len());
            return Err(WireError::Unreadable { what: Self::WHAT, detail });
        }
        Ok(Self {
            certificate: der(&form.certificate)?,
            intermediates: form.intermediates.iter().map(|text| der(text)).collect::<Result<_, _>>()?,
        })
    }
}

fn der(text: &str) -> Result<Vec<u8>, WireError> {
    let unreadable = |detail: String| WireError::Unreadable { what: StoredCertificate::WHAT, detail };
    let der = STANDARD.decode(text).map_err(|error| unreadable(error.to_string()))?;
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(unreadable(format!("it has {} bytes", der.len())));
    }
    Ok(der)
}

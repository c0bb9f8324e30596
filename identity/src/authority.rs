//! A region's certificate authority as values: an offline root, and the intermediate that issues in its name.

use std::net::IpAddr;

use edge_protocol::Id;
use pkcs8::{
    EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef,
    der::{SecretDocument, pem},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};
use zeroize::Zeroizing;

use crate::{
    certificate::Identity,
    key::{KeyError, public_key},
    subject::{Role, Subject},
};

/// Clocks may differ so much: certificates begin that much earlier.
const SKEW_S: u64 = 3_600;
/// Label of an encrypted key in PEM.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// Why the authority does not do it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The library that writes certificates.
    #[error("no certificate can be written: {0}")]
    Write(#[from] rcgen::Error),
    /// The holder's key.
    #[error("no certificate is issued: {0}")]
    Key(#[from] KeyError),
    /// A host that a server shall be reached by.
    #[error("{0:?} is neither an address nor the name of a host")]
    Host(String),
    /// A certificate of the authority itself.
    #[error("the {what} certificate is not of a region's authority")]
    NotAnAuthority {
        /// Which.
        what: &'static str,
    },
    /// Key and certificate of the intermediate.
    #[error("the intermediate's key and certificate do not belong together")]
    Mismatch,
    /// Intermediate and root.
    #[error("the root did not sign the intermediate")]
    OtherRoot,
    /// The passphrase, or a damaged file.
    #[error(
        "the root's key cannot be opened: the passphrase is wrong, or the file is no encrypted PKCS#8 key"
    )]
    Passphrase,
    /// The root's key cannot be encrypted.
    #[error("the root's key cannot be encrypted")]
    Encrypt,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[from] getrandom::Error),
    /// A time that certificates cannot hold.
    #[error("{0} s after 1970 is no time that a certificate can hold")]
    Time(u64),
}

/// How long certificates hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Now, in seconds since 1970.
    pub now_s: u64,
    /// From now on.
    pub for_s: u64,
}

/// A certificate of the authority and its key.
#[derive(Debug)]
pub struct NewAuthority {
    /// The certificate, as PEM.
    pub certificate_pem: String,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl NewAuthority {
    /// A new root.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn root(region: &Id, lifetime: Lifetime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = authority(region, "root", lifetime, 1)?.self_signed(&key)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key,
        })
    }

    /// The region that the certificate is of.
    ///
    /// # Errors
    /// [`AuthorityError::NotAnAuthority`].
    pub fn region(&self) -> Result<Id, AuthorityError> {
        region_of(&self.certificate, "root")
    }

    /// A new intermediate of this root.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn intermediate(&self, region: &Id, lifetime: Lifetime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let root = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let certificate = authority(region, "intermediate", lifetime, 0)?.signed_by(&key, &root)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key,
        })
    }

    /// The key as PKCS#8 in PEM, without protection.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// The key as PKCS#8 in PEM, encrypted with scrypt and AES-256 (PBES2), as `openssl pkcs8` reads it.
    ///
    /// # Errors
    /// [`AuthorityError::Encrypt`].
    pub fn encrypted_key_pem(&self, passphrase: &str) -> Result<Zeroizing<String>, AuthorityError> {
        let der = Zeroizing::new(self.key.serialize_der());
        let info =
            PrivateKeyInfoRef::try_from(der.as_slice()).map_err(|_| AuthorityError::Encrypt)?;
        let encrypted = info
            .encrypt(passphrase)
            .map_err(|_| AuthorityError::Encrypt)?;
        encrypted
            .to_pem(ENCRYPTED, LineEnding::LF)
            .map_err(|_| AuthorityError::Encrypt)
    }

    /// A new intermediate of somebody else's root: its key as PKCS#8 in PEM, and the request that the root's owner
    /// signs, as PEM.
    ///
    /// # Errors
    /// [`AuthorityError::Write`].
    pub fn request(region: &Id) -> Result<(Zeroizing<String>, String), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name = authority_name(region, "intermediate");
        let request = parameters.serialize_request(&key)?.pem()?;
        Ok((Zeroizing::new(key.serialize_pem()), request))
    }

    /// A root from its files.
    ///
    /// # Errors
    /// [`AuthorityError::Passphrase`].
    pub fn open(
        certificate: CertificateDer<'static>,
        certificate_pem: String,
        encrypted_key_pem: &str,
        passphrase: &str,
    ) -> Result<Self, AuthorityError> {
        let wrong = AuthorityError::Passphrase;
        let Ok((ENCRYPTED, document)) = SecretDocument::from_pem(encrypted_key_pem) else {
            return Err(wrong);
        };
        let decrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
            .ok()
            .and_then(|info| info.decrypt(passphrase).ok())
            .ok_or(wrong)?;
        let der = PrivatePkcs8KeyDer::from(decrypted.as_bytes());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)?;
        Ok(Self {
            certificate_pem,
            certificate,
            key,
        })
    }
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// What it says.
    pub identity: Identity,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The certificate as PEM, without its intermediate.
    pub pem: String,
}

/// The intermediate, which issues certificates.
pub struct Authority {
    region: Id,
    root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority whose intermediate has this certificate and key. The root may be anybody's.
    ///
    /// # Errors
    /// [`AuthorityError`] when they are no authority of a region, or do not belong together.
    pub fn new(
        root: CertificateDer<'static>,
        intermediate: CertificateDer<'static>,
        key_pem: &str,
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem)?;
        let region = region_of(&intermediate, "intermediate")?;
        let Ok(([], above)) = X509Certificate::from_der(&root) else {
            return Err(AuthorityError::NotAnAuthority { what: "root" });
        };
        if !above.is_ca() {
            return Err(AuthorityError::NotAnAuthority { what: "root" });
        }
        let (_, certificate) = X509Certificate::from_der(&intermediate).map_err(|_| {
            AuthorityError::NotAnAuthority {
                what: "intermediate",
            }
        })?;
        if certificate.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(AuthorityError::Mismatch);
        }
        certificate
            .verify_signature(Some(above.public_key()))
            .map_err(|_| AuthorityError::OtherRoot)?;
        let issuer = Issuer::from_ca_cert_der(&intermediate, key)?;
        Ok(Self {
            region,
            root,
            intermediate,
            issuer,
        })
    }

    /// The region that it issues for.
    #[must_use]
    pub fn region(&self) -> &Id {
        &self.region
    }

    /// The region's root.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The certificate that stands between `leaf` and the root, and the root: what servers show, so that a client
    /// that knows only the root's fingerprint can check it.
    #[must_use]
    pub fn server_chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        vec![leaf, self.intermediate.clone(), self.root.clone()]
    }

    /// The certificate of the intermediate.
    #[must_use]
    pub fn intermediate(&self) -> &CertificateDer<'static> {
        &self.intermediate
    }

    /// The intermediate as PEM.
    ///
    /// # Errors
    /// None for a certificate that was read as one.
    pub fn intermediate_pem(&self) -> Result<String, AuthorityError> {
        certificate_pem(&self.intermediate)
    }

    /// The root as PEM.
    ///
    /// # Errors
    /// None for a certificate that was read as one.
    pub fn root_pem(&self) -> Result<String, AuthorityError> {
        certificate_pem(&self.root)
    }

    /// Issues a certificate. Servers get `hosts` as the names by which foreign clients check them; a certificate
    /// never outlives the intermediate.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn issue(
        &self,
        subject: &Subject,
        public_key_der: &[u8],
        lifetime: Lifetime,
        hosts: &[String],
    ) -> Result<Issued, AuthorityError> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name = subject.distinguished_name();
        parameters.serial_number = Some(SerialNumber::from_slice(&serial()?));
        set_validity(&mut parameters, lifetime)?;
        let (_, own) = X509Certificate::from_der(&self.intermediate).map_err(|_| {
            AuthorityError::NotAnAuthority {
                what: "intermediate",
            }
        })?;
        let end = own.validity().not_after.to_datetime();
        parameters.not_after = parameters.not_after.min(end);
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = match subject.role {
            Role::Broker => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Role::Indexer => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            _ => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        for host in hosts {
            parameters.subject_alt_names.push(alternative_name(host)?);
        }
        let certificate = parameters.signed_by(&public_key(public_key_der)?, &self.issuer)?;
        let identity = Identity::read(certificate.der())
            .map_err(|_| AuthorityError::NotAnAuthority { what: "issued" })?;
        Ok(Issued {
            identity,
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
        })
    }

    /// The list of these revoked certificates, as PEM, for brokers that read one.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn revocation_list(
        &self,
        serials: &[Vec<u8>],
        lifetime: Lifetime,
    ) -> Result<String, AuthorityError> {
        let revoked_at = time(lifetime.now_s)?;
        let list = rcgen::CertificateRevocationListParams {
            this_update: time(lifetime.now_s.saturating_sub(SKEW_S))?,
            next_update: time(lifetime.now_s.saturating_add(lifetime.for_s))?,
            // Later lists have greater numbers (RFC 5280, section 5.2.3).
            crl_number: SerialNumber::from(lifetime.now_s),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|serial| rcgen::RevokedCertParams {
                    serial_number: SerialNumber::from_slice(serial),
                    revocation_time: revoked_at,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

/// A new key for one who has none, as PKCS#8 in PEM, and its `SubjectPublicKeyInfo`. P-256, which every sensor's TLS
/// library knows.
///
/// # Errors
/// [`AuthorityError`].
pub fn new_key() -> Result<(Zeroizing<String>, Vec<u8>), AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let public = rcgen::PublicKeyData::subject_public_key_info(&key);
    Ok((Zeroizing::new(key.serialize_pem()), public))
}

/// The `SubjectPublicKeyInfo` of a key in PKCS#8.
///
/// # Errors
/// [`AuthorityError::Write`] when it is no key.
pub fn public_key_of(key_pem: &str) -> Result<Vec<u8>, AuthorityError> {
    let key = KeyPair::from_pem(key_pem)?;
    Ok(rcgen::PublicKeyData::subject_public_key_info(&key))
}

/// A certificate request of a key in PKCS#8.
///
/// # Errors
/// [`AuthorityError`].
pub fn request(subject: &Subject, key_pem: &str) -> Result<String, AuthorityError> {
    let key = KeyPair::from_pem(key_pem)?;
    // It cannot fail otherwise: the key is in memory.
    crate::request::write(subject, &key)
        .map_err(|_| AuthorityError::Write(rcgen::Error::RemoteKeyError))
}

fn authority(
    region: &Id,
    what: &str,
    lifetime: Lifetime,
    below: u8,
) -> Result<CertificateParams, AuthorityError> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = authority_name(region, what);
    parameters.serial_number = Some(SerialNumber::from_slice(&serial()?));
    set_validity(&mut parameters, lifetime)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn authority_name(region: &Id, what: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, region.as_str());
    name.push(DnType::CommonName, format!("{what} of region {region}"));
    name
}

fn set_validity(
    parameters: &mut CertificateParams,
    lifetime: Lifetime,
) -> Result<(), AuthorityError> {
    parameters.not_before = time(lifetime.now_s.saturating_sub(SKEW_S))?;
    parameters.not_after = time(lifetime.now_s.saturating_add(lifetime.for_s))?;
    Ok(())
}

fn time(seconds: u64) -> Result<OffsetDateTime, AuthorityError> {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(AuthorityError::Time(seconds))
}

/// 16 random bytes, as a positive number.
fn serial() -> Result<[u8; 16], AuthorityError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes)
}

fn alternative_name(host: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || AuthorityError::Host(host.to_owned());
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(wrong());
    }
    let name = host.try_into().map_err(|_| wrong())?;
    Ok(SanType::DnsName(name))
}

fn certificate_pem(certificate: &CertificateDer<'_>) -> Result<String, AuthorityError> {
    pem::encode_string("CERTIFICATE", LineEnding::LF, certificate)
        .map_err(|_| AuthorityError::NotAnAuthority { what: "own" })
}

fn region_of(certificate: &CertificateDer<'_>, what: &'static str) -> Result<Id, AuthorityError> {
    let wrong = AuthorityError::NotAnAuthority { what };
    let Ok(([], certificate)) = X509Certificate::from_der(certificate) else {
        return Err(wrong);
    };
    let mut organizations = certificate.subject().iter_organization();
    let region = organizations
        .next()
        .and_then(|attribute| attribute.as_str().ok())
        .and_then(|name| Id::new(name).ok());
    match region {
        Some(region) if certificate.is_ca() => Ok(region),
        _ => Err(wrong),
    }
}

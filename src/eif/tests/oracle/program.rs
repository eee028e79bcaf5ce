//! AWS's reader and writer of enclave images. What goes wrong ends it with a message.
//!
//! `oracle read IMAGE` prints what AWS's reader sees. `oracle build DIRECTORY IMAGE` writes an image with AWS's writer, from
//! the parts in a directory that `eif extract` has made, and prints its PCRs; `oracle sign DIRECTORY IMAGE` the same, signed
//! with a key made for it.

use std::{collections::BTreeMap, error::Error, fs, fs::File, path::Path};

use aws_nitro_enclaves_image_format::{
    defs::EifIdentityInfo,
    utils::{EifBuilder, SignKeyData, eif_reader::EifReader, eif_signer::SignKey},
};
use openssl::{
    asn1::Asn1Time,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::PKey,
    x509::{X509, X509NameBuilder},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha384};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let answer = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", image] => read(image)?,
        ["build", directory, image] => build(Path::new(directory), Path::new(image), None)?,
        ["sign", directory, image] => build(Path::new(directory), Path::new(image), Some(signer()?))?,
        _ => return Err("read IMAGE, build DIRECTORY IMAGE or sign DIRECTORY IMAGE".into()),
    };
    println!("{answer}");
    Ok(())
}

fn read(image: &str) -> Result<Value> {
    let mut reader = EifReader::from_eif(image.to_owned())?;
    let header = reader.get_header();
    let used = usize::from(header.num_sections);
    let measurements = reader.get_measurements()?;
    // It verifies the signature, too, and says in `sign_check` whether it is good.
    if reader.signature_section.is_some() {
        reader.get_certificate_info(measurements.clone())?;
    }
    Ok(json!({
        "version": header.version,
        "flags": header.flags,
        "default_memory": header.default_mem,
        "default_cpus": header.default_cpus,
        "offsets": header.section_offsets[..used],
        "sizes": header.section_sizes[..used],
        "crc_is_right": reader.check_crc(),
        "signature_is_right": reader.sign_check,
        "metadata": reader.get_metadata(),
        "pcrs": pcrs(measurements),
    }))
}

fn build(directory: &Path, image: &Path, signer: Option<SignKeyData>) -> Result<Value> {
    let metadata: EifIdentityInfo = serde_json::from_slice(&fs::read(directory.join("metadata.json"))?)?;
    let command_line = fs::read_to_string(directory.join("cmdline"))?;
    let flags = 0; // x86_64
    let kernel = directory.join("kernel");
    let mut builder = EifBuilder::new(&kernel, command_line, signer, Sha384::new(), flags, metadata);
    for ramdisk in (1..).map(|number| directory.join(format!("ramdisk-{number}"))) {
        if !ramdisk.exists() {
            break;
        }
        builder.add_ramdisk(&ramdisk);
    }
    Ok(pcrs(builder.write_to(&mut File::create(image)?)))
}

/// With the name of the digest in the same map.
fn pcrs(measurements: BTreeMap<String, String>) -> Value {
    measurements.into_iter().filter(|(name, _)| name.starts_with("PCR")).collect()
}

fn signer() -> Result<SignKeyData> {
    let group = EcGroup::from_curve_name(Nid::SECP384R1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", "oracle")?;
    let name = name.build();
    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_pubkey(&key)?;
    certificate.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    certificate.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    certificate.sign(&key, MessageDigest::sha384())?;
    Ok(SignKeyData {
        cert: certificate.build().to_pem()?,
        key: SignKey::LocalPrivateKey(key.private_key_to_pem_pkcs8()?),
    })
}

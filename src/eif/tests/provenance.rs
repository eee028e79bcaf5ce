//! What `eif build` says about an image is true of the image, and names everything that went into its PCRs.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

/// Builds an image of small files in `directory`, with more arguments, and returns its provenance.
fn build(directory: &Path, arguments: &[&str]) -> Value {
    let output = try_to_build(directory, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&fs::read(directory.join("out/provenance.json")).unwrap()).unwrap()
}

fn try_to_build(directory: &Path, arguments: &[&str]) -> Output {
    for (name, contents) in [("kernel", "the kernel"), ("init", "the runtime"), ("app", "the application")] {
        fs::write(directory.join(name), contents).unwrap();
    }
    Command::new(env!("CARGO_BIN_EXE_eif"))
        .args(["build", "--kernel=kernel", "--kernel-version=6.12", "--command-line=quiet", "--out=out"])
        .args(["--runtime=/init=init", "--runtime=/dev/", "--application=/bin/app=app:644"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

#[test]
fn its_pcrs_and_sections_are_those_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let provenance = build(directory.path(), &[]);
    let image = fs::read(directory.path().join("out/image.eif")).unwrap();
    let summary = eif::scan(&image[..], |_, _, _| Ok(())).unwrap();
    assert_eq!(provenance["format"], 1);
    assert_eq!(provenance["pcrs"], serde_json::to_value(summary.measurements).unwrap());
    assert_eq!(provenance["image_bytes"], image.len());
    let names = ["kernel", "command line", "ramdisk 1 (runtime)", "ramdisk 2 (application)"];
    let pcrs = [[0, 1], [0, 1], [0, 1], [0, 2]];
    let measured = summary.measured_sections();
    assert_eq!(measured.len(), names.len());
    for (index, section) in measured.iter().enumerate() {
        let expected = json!({
            "section": names[index],
            "pcrs": pcrs[index],
            "sha384": hex::encode(section.sha384),
            "bytes": section.bytes,
        });
        assert_eq!(provenance["sections"][index], expected);
    }
}

#[test]
fn its_inputs_are_all_that_a_pcr_depends_on() {
    let directory = tempfile::tempdir().unwrap();
    let inputs = build(directory.path(), &[])["inputs"].clone();
    let said = |index: usize| {
        let input: &Value = &inputs[index];
        [&input["section"], &input["path"], &input["source"], &input["mode"], &input["pcrs"]]
            .map(Value::clone)
    };
    assert_eq!(said(0), [json!("kernel"), json!(null), json!("kernel"), json!(null), json!([0, 1])]);
    assert_eq!(said(1), [json!("command line"), json!(null), json!(null), json!(null), json!([0, 1])]);
    let runtime = json!("ramdisk 1 (runtime)");
    assert_eq!(said(2), [runtime.clone(), json!("/init"), json!("init"), json!("755"), json!([0, 1])]);
    assert_eq!(said(3), [runtime, json!("/dev/"), json!(null), json!("755"), json!([0, 1])]);
    let application = json!("ramdisk 2 (application)");
    assert_eq!(said(4), [application, json!("/bin/app"), json!("app"), json!("644"), json!([0, 2])]);
    assert_eq!(inputs.as_array().unwrap().len(), 5);
}

#[test]
fn a_directory_more_is_a_pcr1_and_an_input_more() {
    let directory = tempfile::tempdir().unwrap();
    let before = build(directory.path(), &[]);
    let after = build(directory.path(), &["--runtime=/proc/"]);
    assert_ne!(before["pcrs"]["PCR1"], after["pcrs"]["PCR1"]);
    assert_eq!(before["pcrs"]["PCR2"], after["pcrs"]["PCR2"]);
    assert_eq!(after["inputs"][4]["path"], "/proc/");
}

#[test]
fn what_would_not_be_what_it_seems_is_refused_and_named() {
    for (argument, problem) in [
        ("--application=/init=app", "/init is in both ramdisks"),
        ("--application=/dev=app", "/dev is in both ramdisks"),
        ("--application=/bin/app/more=app", "--application\n\nCaused by:\n    /bin/app is a file"),
        ("--runtime=/init/more=app", "--runtime\n\nCaused by:\n    /init is a file"),
        ("--runtime=/init=app", "/init is in the ramdisk twice"),
        ("--built-with=rustc", "\"rustc\" is not NAME=VERSION"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = try_to_build(directory.path(), &[argument]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(problem), "{argument}: {said}");
        assert!(!directory.path().join("out").exists(), "{argument}");
    }
}

#[test]
fn an_input_that_is_named_twice_or_is_empty_is_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let output = try_to_build(directory.path(), &["--built-with=ld=1", "--built-with=ld=2"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--built-with names ld twice"), "{said}");

    let image = eif::Image {
        architecture: eif::Architecture::X86_64,
        kernel: Vec::new(),
        command_line: "quiet".to_owned(),
        ramdisks: vec![b"ramdisk".to_vec()],
        metadata: eif::Metadata::new("test", "1", "6.12"),
    };
    let error = image.write(Vec::new()).unwrap_err().to_string();
    assert!(error.contains("section 0, the kernel, has 0 bytes"), "{error}");
}

#[test]
fn taking_apart_names_the_file_that_cannot_be_read_or_written_and_makes_nothing_before() {
    let directory = tempfile::tempdir().unwrap();
    build(directory.path(), &[]);
    let extract = |image: &str, to: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_eif"))
            .args(["extract", image, to])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = extract("missing", "parts");
    assert!(said.contains("missing: No such file"), "{said}");
    assert!(!directory.path().join("parts").exists());
    let said = extract("out/image.eif", "kernel/parts");
    assert!(said.contains("kernel/parts: Not a directory"), "{said}");
    fs::create_dir_all(directory.path().join("taken/initrd")).unwrap();
    let said = extract("out/image.eif", "taken");
    assert!(said.contains("taken/initrd: Is a directory"), "{said}");
}

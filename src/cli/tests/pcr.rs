//! `pcr compare` and `pcr check` on images that `eif build` made.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/images.rs"]
mod images;

use std::fs;

use images::{CONFIG, ENCLAVE, Ended, KERNEL, SERVICE, World};
use serde_json::{Value, json};

#[test]
fn equal_images_end_with_0_and_say_that_nothing_changed() {
    let world = World::new();
    world.image("base", None);
    world.image("head", None);
    let answer = world.compare("base", "head", 0);
    assert_eq!((&answer["same"], &answer["changed"]), (&json!(true), &json!([])));
    let Ended(code, markdown, _) = world.run(&["compare", "base", "head", "--markdown"]);
    assert_eq!(code, 0);
    assert!(markdown.contains("Nothing changed"), "{markdown}");
}

#[test]
fn each_input_is_named_with_its_section_and_the_pcrs_that_cover_it() {
    let world = World::new();
    world.image("base", None);
    for (input, name, section, pcrs, changed) in [
        (KERNEL, "kernel", "kernel", json!([0, 1]), json!(["PCR0", "PCR1"])),
        (ENCLAVE, "/init", "ramdisk 1 (runtime)", json!([0, 1]), json!(["PCR0", "PCR1"])),
        (SERVICE, "/bin/sign-service", "ramdisk 2 (application)", json!([0, 2]), json!(["PCR0", "PCR2"])),
        (
            CONFIG,
            "/etc/nitro-sign/enclave.toml",
            "ramdisk 2 (application)",
            json!([0, 2]),
            json!(["PCR0", "PCR2"]),
        ),
    ] {
        world.image(input, Some(input));
        let answer = world.compare("base", input, 1);
        assert_eq!(answer["changed"], changed);
        assert_eq!(answer["sections"].as_array().unwrap().len(), 1, "{answer}");
        let changed = &answer["sections"][0];
        assert_eq!((&changed["section"], &changed["pcrs"]), (&json!(section), &pcrs));
        assert_eq!(changed["inputs"].as_array().unwrap().len(), 1, "{answer}");
        let bytes = |image: &str| fs::metadata(world.path(image).join("inputs").join(input)).unwrap().len();
        let input_change = &changed["inputs"][0];
        assert_eq!(input_change["input"], name);
        assert_eq!(input_change["base"]["bytes"], bytes("base"));
        assert_eq!(input_change["head"]["bytes"], bytes(input));
        assert_ne!(input_change["base"]["sha256"], input_change["head"]["sha256"]);
    }
}

#[test]
fn command_line_modes_new_files_and_compilers_are_named() {
    let world = World::new();
    world.image("base", None);
    let built_with = "--built-with=rustc=1.96.0";
    let others = ["--command-line=quiet nokaslr", "--application=/etc/new=inputs/kernel", built_with];
    world.image_with("head", None, &others);
    let Ended(code, _, stderr) = world.run(&["compare", "base", "head"]);
    assert_eq!(code, 1);
    for words in [
        "PCR0, PCR1 and PCR2 changed",
        "section command line, in PCR0 and PCR1",
        "/etc/new: added: 16 bytes",
        "rustc: 1.95.0 → 1.96.0",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    world.provenance("mode.json", "base", |json| json["inputs"][3]["mode"] = json!("4755"));
    let bytes = json!("ff".repeat(48));
    world.provenance("mode.json", "base", |json| {
        json["inputs"][3]["mode"] = json!("4755");
        json["sections"][3]["sha384"] = bytes.clone();
        json["pcrs"]["PCR0"] = bytes.clone();
        json["pcrs"]["PCR2"] = bytes;
    });
    let Ended(code, _, stderr) = world.run(&["compare", "base", "mode.json"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("/bin/sign-service: mode 755 → 4755"), "{stderr}");
}

#[test]
fn equal_files_in_a_ramdisk_that_differs_were_packed_by_another_tool() {
    let world = World::new();
    world.image("base", None);
    let bytes = json!("ff".repeat(48));
    world.provenance("packed.json", "base", |json| {
        json["sections"][2]["sha384"] = bytes.clone();
        json["pcrs"]["PCR0"] = bytes.clone();
        json["pcrs"]["PCR1"] = bytes;
    });
    let Ended(code, _, stderr) = world.run(&["compare", "base", "packed.json"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("packed by another `eif`"), "{stderr}");
}

#[test]
fn images_alone_say_which_section_and_pcrs_alone_say_which_pcr() {
    let world = World::new();
    world.image("base", None);
    world.image("head", Some(SERVICE));
    let answer = world.compare("base/image.eif", "head/image.eif", 1);
    assert_eq!(answer["sections"][0]["section"], "ramdisk 2 (application)");
    assert_eq!(answer["built_with"], Value::Null);
    let answer = world.compare("base/pcrs.json", "head/provenance.json", 1);
    assert_eq!((&answer["changed"], &answer["sections"]), (&json!(["PCR0", "PCR2"]), &Value::Null));
    world.compare("base/image.eif", "base", 0);
    let Ended(_, markdown, _) = world.run(&["compare", "base/image.eif", "head", "--markdown"]);
    assert!(markdown.contains("\n| ramdisk 2 (application) | PCR0 and PCR2 | | differs |\n"), "{markdown}");
}

#[test]
fn what_cannot_be_true_is_trouble() {
    let world = World::new();
    world.image("base", None);
    let other = json!("ff".repeat(48));
    world.provenance("pcr.json", "base", |json| json["pcrs"]["PCR0"] = other.clone());
    world.trouble(
        "base",
        "pcr.json",
        &["pcr.json", "PCR0 differs, but no section that it covers does", "build"],
    );
    world.provenance("input.json", "base", |json| json["inputs"][0]["sha256"] = json!("ff"));
    world.trouble("base", "input.json", &["kernel differs, but section \"kernel\"", "is the same"]);
    world.provenance("section.json", "base", |json| json["sections"][0]["sha384"] = other.clone());
    world.trouble("base", "section.json", &["section \"kernel\" differs, but PCR0"]);
    world.provenance("kernel.json", "base", |json| {
        json["sections"][0]["sha384"] = other.clone();
        json["pcrs"]["PCR0"] = other.clone();
        json["pcrs"]["PCR1"] = other.clone();
    });
    world.trouble("base", "kernel.json", &["section \"kernel\" differs, but its input does not"]);
}

#[test]
fn a_directory_with_files_of_two_builds_is_trouble() {
    let world = World::new();
    world.image("base", None);
    for (file, words) in [
        ("image.eif", ["head/provenance.json", "field `pcrs.PCR0`", "head/image.eif"]),
        ("pcrs.json", ["head/provenance.json", "field `pcrs.PCR0`", "head/pcrs.json"]),
    ] {
        world.image("head", Some(SERVICE));
        fs::copy(world.path("base").join(file), world.path("head").join(file)).unwrap();
        world.trouble("base", "head", &words);
    }
    // The same PCRs, other metadata.
    world.image_with("named", None, &["--command-line=quiet", "--name=other"]);
    fs::copy(world.path("base/image.eif"), world.path("named/image.eif")).unwrap();
    world.trouble("base", "named", &["named/provenance.json", "field `image_sha256`", "named/image.eif"]);
}

#[test]
fn a_directory_whose_provenance_names_inputs_that_are_not_in_the_image_is_trouble() {
    type Change = fn(&mut Vec<Value>);

    let world = World::new();
    world.image("base", None);
    let service = "/bin/sign-service in ramdisk 2 (application) is not what head/image.eif has";
    let cases: [(&str, Change); 8] = [
        (service, |inputs| inputs[3]["sha256"] = json!("00".repeat(32))),
        (service, |inputs| inputs[3]["bytes"] = json!(1)),
        (service, |inputs| inputs[3]["mode"] = json!("4755")),
        (service, |inputs| drop(inputs.remove(3))),
        (service, |inputs| inputs.push(inputs[3].clone())),
        ("/bin/tool in ramdisk 2", |inputs| inputs[3]["path"] = json!("/bin/tool")),
        ("the kernel is not", |inputs| inputs[0]["sha256"] = json!("00".repeat(32))),
        ("the command line is not", |inputs| inputs[1]["bytes"] = json!(1)),
    ];
    for (problem, change) in cases {
        world.image("head", None);
        world.provenance("head/provenance.json", "head", |json| {
            change(json["inputs"].as_array_mut().unwrap());
        });
        world.trouble(
            "base",
            "head",
            &["head/provenance.json: field `inputs`", problem, "build the image again"],
        );
    }
}

#[test]
fn an_image_that_is_not_there_is_not_taken_as_measured() {
    let world = World::new();
    world.image("image", None);
    fs::copy(world.path("image/pcrs.json"), world.path("release.json")).unwrap();
    let check = |image: &str, problem: &str| {
        let Ended(code, stdout, stderr) = world.run(&["check", "--release", "release.json", image]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains(problem), "{stderr}");
    };
    for file in ["image/pcrs.json", "image/provenance.json"] {
        check(file, &format!("{file} only says which PCRs an image has: give the image"));
    }
    fs::remove_file(world.path("image/image.eif")).unwrap();
    check("image", "image has no image.eif: give the result");
    std::os::unix::fs::symlink("nowhere", world.path("image/image.eif")).unwrap();
    check("image", "image has no image.eif: give the result");
}

#[test]
fn what_is_too_large_to_be_the_right_file_is_not_read() {
    let world = World::new();
    world.image("base", None);
    fs::File::create(world.path("huge")).unwrap().set_len(1 << 40).unwrap();
    world.trouble("base", "huge", &["huge is larger than", "is it the right file?"]);
    let drv = format!("{}-huge.drv", "0".repeat(32));
    fs::File::create(world.path(&drv)).unwrap().set_len(1 << 40).unwrap();
    let Ended(code, _, stderr) = world.run(&["compare", "base", "base", "--derivations", &drv, &drv]);
    assert_eq!(code, 2);
    assert!(stderr.contains("huge.drv is larger than"), "{stderr}");
}

#[test]
fn what_cannot_be_read_is_trouble_that_names_file_field_and_remedy() {
    let world = World::new();
    world.image("base", None);
    world.trouble("base", "none", &["none"]);
    fs::create_dir(world.path("empty")).unwrap();
    world.trouble("base", "empty", &["empty has no provenance.json", "nix build .#eif"]);
    fs::write(world.path("text"), "PCR0").unwrap();
    world.trouble("base", "text", &["text is neither an enclave image nor JSON"]);
    fs::write(world.path("damaged.eif"), ".eif").unwrap();
    world.trouble("base", "damaged.eif", &["damaged.eif", "truncated"]);
    world.provenance("later.json", "base", |json| json["format"] = json!(2));
    world.trouble(
        "base",
        "later.json",
        &["later.json", "field `format` is 2", "reads 1", "build the image again"],
    );
    world.provenance("earlier.json", "base", |json| json["format"] = Value::Null);
    world.trouble("base", "earlier.json", &["field `format` is null"]);
    world.provenance("without.json", "base", |json| drop(json.as_object_mut().unwrap().remove("format")));
    world.trouble(
        "base",
        "without.json",
        &["without.json: field `format` is missing", "build the image again"],
    );
    world.provenance("incomplete.json", "base", |json| drop(json.as_object_mut().unwrap().remove("inputs")));
    world.trouble(
        "base",
        "incomplete.json",
        &["incomplete.json: missing field `inputs`", "build the image again"],
    );
    world.provenance("short.json", "base", |json| json["pcrs"]["PCR1"] = json!("ab"));
    world.trouble("base", "short.json", &["short.json: field `pcrs.PCR1`: ", "96", "build the image again"]);
    world.provenance("bytes.json", "base", |json| json["sections"][2]["bytes"] = json!(-1));
    world.trouble(
        "base",
        "bytes.json",
        &["bytes.json: field `sections[2].bytes`: ", "build the image again"],
    );
    let mut pcrs = world.json("base/pcrs.json");
    pcrs["PCR2"] = json!("ab");
    fs::write(world.path("pcrs.json"), pcrs.to_string()).unwrap();
    world.trouble("base", "pcrs.json", &["pcrs.json: field `PCR2`: ", "96", "build the image again"]);
    drop(pcrs.as_object_mut().unwrap().remove("PCR2"));
    fs::write(world.path("pcrs.json"), pcrs.to_string()).unwrap();
    world.trouble("base", "pcrs.json", &["pcrs.json: missing field `PCR2`", "build the image again"]);
}

#[test]
fn a_comment_has_the_marker_and_shows_hostile_names_as_they_are() {
    let world = World::new();
    world.image("base", None);
    world.image_with(
        "head",
        None,
        &[
            "--command-line=quiet",
            "--built-with=<img>@everyone|x=1`2|<script>",
            "--application=/a|`b=inputs/kernel",
            "--application=/c\\|@d=inputs/kernel",
        ],
    );
    let Ended(code, markdown, stderr) = world.run(&["compare", "base", "head", "--markdown"]);
    assert_eq!((code, stderr.as_str()), (1, ""));
    assert!(markdown.starts_with("<!-- nitro-sign pcr compare -->\n"), "{markdown}");
    assert!(markdown.contains("| \\<img\\>&#64;everyone\\|x | `(none)` | `1 2\\|<script>` |"), "{markdown}");
    assert!(markdown.contains("| `/a\\| b` |"), "{markdown}");
    // Two backslashes would be one for the table, and the pipe its own.
    assert!(markdown.contains("| `/c \\|@d` |"), "{markdown}");
    let (before, after) = (world.json("base/pcrs.json"), world.json("head/pcrs.json"));
    for pcr in [&before["PCR0"], &after["PCR0"], &before["PCR2"], &after["PCR2"], &before["PCR1"]] {
        assert!(markdown.contains(pcr.as_str().unwrap()), "{markdown}");
    }
}

#[test]
fn a_committed_release_has_to_have_the_pcrs_of_the_build() {
    let world = World::new();
    world.image("image", None);
    world.image("other", Some(CONFIG));
    let check = ["check", "--release", "release/pcrs.json", "image"];
    let Ended(code, _, stderr) = world.run(&check);
    assert_eq!(code, 0);
    assert!(stderr.contains("nothing to check: release/pcrs.json does not exist"), "{stderr}");

    fs::create_dir(world.path("release")).unwrap();
    fs::copy(world.path("image/pcrs.json"), world.path("release/pcrs.json")).unwrap();
    let Ended(code, stdout, stderr) = world.run(&check);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["same"], true);

    fs::copy(world.path("other/pcrs.json"), world.path("release/pcrs.json")).unwrap();
    let Ended(code, _, stderr) = world.run(&check);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("PCR0 is") && stderr.contains("PCR2 is") && !stderr.contains("PCR1 is"),
        "{stderr}"
    );
    assert!(stderr.contains("remove release/pcrs.json"), "{stderr}");

    fs::copy(world.path("image/provenance.json"), world.path("release/pcrs.json")).unwrap();
    let Ended(code, _, stderr) = world.run(&check);
    assert_eq!(code, 2);
    assert!(stderr.contains("release/pcrs.json is not a pcrs.json"), "{stderr}");
}

/// A comment without what differs from build to build: hashes and sizes.
fn without_values(markdown: &str) -> String {
    let is_value =
        |word: &str| word.chars().all(|c| c.is_ascii_hexdigit()) && word.chars().any(|c| c.is_ascii_digit());
    let words = markdown.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| {
            let text = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            if is_value(text) { format!("VALUE{}", &word[text.len()..]) } else { word.to_owned() }
        })
        .collect()
}

#[test]
fn the_sample_in_the_documents_is_what_the_program_prints() {
    let document = include_str!("../../../docs/pcr-compare.md");
    let (_, sample) = document.split_once("```markdown\n").unwrap();
    let (sample, _) = sample.split_once("```\n").unwrap();
    // What derivations say is tests/derivations.rs's matter.
    let (images, packages) = sample.split_once("First packages that differ:\n\n").unwrap();
    let (_, last) = packages.split_once("\n\n").unwrap();
    let (_, sources) = images.split_once(", from `").unwrap();
    let (base, head) = sources.split_once("` |").unwrap().0.split_once("` → `").unwrap();

    let world = World::new();
    for (name, changed, source) in [("base", None, base), ("head", Some(SERVICE), head)] {
        world.image(name, changed);
        world.provenance(&format!("{name}/provenance.json"), name, |provenance| {
            let inputs = provenance["inputs"].as_array_mut().unwrap();
            let service = inputs.iter_mut().find(|input| input["path"] == "/bin/sign-service").unwrap();
            service["source"] = source.into();
        });
    }
    let Ended(_, markdown, _) = world.run(&["compare", "base", "head", "--markdown"]);
    assert_eq!(without_values(&format!("{images}{last}")), without_values(&markdown));
}

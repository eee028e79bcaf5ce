//! `pcr compare --derivations` on small graphs of derivation files, as Nix writes them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/store.rs"]
mod store;

use std::fs;

use serde_json::{Value, json};
use store::{Recipe, Store, path};

const BASE: [&str; 4] = ["6.12.94", "1.95.0", "cargo build", "first"];

fn base(store: &Store) -> String {
    let [linux, rustc, script, source] = BASE;
    store.image(linux, rustc, script, source)
}

#[test]
fn a_package_of_another_version_is_the_cause_and_nothing_that_depends_on_it() {
    let store = Store::new();
    let head = store.image("6.12.95", BASE[1], BASE[2], BASE[3]);
    let base = base(&store);
    let expected = json!([{
        "name": "linux",
        "versions": ["6.12.94", "6.12.95"],
        "what": ["source linux-6.12.94.tar.xz → linux-6.12.95.tar.xz"],
        "via": ["image-eif"],
    }]);
    assert_eq!(store.packages(&base, &head), expected);
    let (_, markdown, _) = store.run(&base, &head, &["--markdown"]);
    assert!(markdown.contains("### PCR0 changed because linux went 6.12.94 → 6.12.95\n"), "{markdown}");
}

#[test]
fn several_causes_come_in_the_same_order_each_time() {
    let store = Store::new();
    let base = base(&store);
    let head = store.image("6.12.95", "1.96.0", "cargo build --release", "second");
    let packages = store.packages(&base, &head);
    let names: Vec<_> = packages.as_array().unwrap().iter().map(|package| &package["name"]).collect();
    // Breadth first, by name. Tools are not looked at: they are beneath another linux.
    assert_eq!(names, ["enclave", "linux", "rustc"]);
    let what = json!(["file source has other contents", "buildPhase: cargo build → cargo build --release"]);
    assert_eq!(packages[0]["what"], what);
    assert_eq!(packages[2]["via"], json!(["image-eif", "enclave"]));
    for _ in 0..5 {
        assert_eq!(store.packages(&base, &head), packages);
    }
    let (_, markdown, _) = store.run(&base, &head, &["--markdown"]);
    let headline = "linux went 6.12.94 → 6.12.95, rustc went 1.95.0 → 1.96.0 and 1 other package differs";
    assert!(markdown.contains(headline), "{markdown}");
}

#[test]
fn what_is_fetched_from_elsewhere_with_the_same_hash_is_no_cause() {
    let store = Store::new();
    let hash = "cc".repeat(32);
    let image = |url, version| {
        let environment = [("url", url)];
        let tarball =
            Recipe { name: "data", hash: Some(&hash), environment: &environment, ..Recipe::default() };
        let tarball = store.add(&tarball);
        let environment = [("version", version)];
        store.add(&Recipe {
            name: "image",
            inputs: &[&tarball],
            environment: &environment,
            ..Recipe::default()
        })
    };
    let packages = store.packages(&image("https://one.example", "1"), &image("https://two.example", "2"));
    assert_eq!(packages, json!([{ "name": "image", "versions": ["1", "2"], "what": [], "via": [] }]));
}

#[test]
fn inputs_that_only_one_has_are_named() {
    let store = Store::new();
    let base = store.add(&Recipe { name: "image", ..Recipe::default() });
    let input = store.add(&Recipe { name: "extra-1.0", ..Recipe::default() });
    let head = store.add(&Recipe { name: "image", inputs: &[&input], ..Recipe::default() });
    let what = &store.packages(&base, &head)[0]["what"];
    assert!(what.as_array().unwrap().contains(&json!("input extra-1.0 added")), "{what}");
}

#[test]
fn the_same_derivation_has_no_cause() {
    let store = Store::new();
    let base = base(&store);
    assert_eq!(store.packages(&base, &base), json!([]));
}

#[test]
fn inputs_can_be_in_another_directory_and_a_missing_one_is_named() {
    let store = Store::new();
    let base = base(&store);
    let head = store.image("6.12.95", BASE[1], BASE[2], BASE[3]);
    let expected = store.packages(&base, &head);
    fs::create_dir(store.path().join("elsewhere")).unwrap();
    for entry in fs::read_dir(store.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_derivation = path.extension().is_some_and(|extension| extension == "drv");
        if is_derivation && name != base && name != head {
            fs::rename(&path, store.path().join("elsewhere").join(name)).unwrap();
        }
    }
    let (code, _, stderr) = store.run(&base, &head, &[]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("cannot read the derivation") && stderr.contains("--store"), "{stderr}");

    for name in [&base, &head] {
        fs::copy(store.path().join(name), store.path().join("elsewhere").join(name)).unwrap();
    }
    let (code, stdout, stderr) = store.run(&base, &head, &["--store", "elsewhere"]);
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["packages"], expected);
}

#[test]
fn what_is_no_derivation_is_trouble() {
    let store = Store::new();
    let base = base(&store);
    fs::write(store.path().join("image.drv"), "Derive(").unwrap();
    let (code, _, stderr) = store.run(&base, "image.drv", &[]);
    assert_eq!(code, 2);
    assert!(stderr.contains("image.drv is not named like a derivation"), "{stderr}");
    let damaged = format!("{}-image.drv", "0".repeat(32));
    fs::write(store.path().join(&damaged), "Derive(").unwrap();
    let (code, _, stderr) = store.run(&base, &damaged, &[]);
    assert_eq!(code, 2);
    assert!(stderr.contains(&damaged) && stderr.contains("is not a derivation that can be read"), "{stderr}");
}

#[test]
fn derivations_that_are_their_own_inputs_are_trouble_and_end() {
    let store = Store::new();
    let files: Vec<_> = ["base", "head"]
        .map(|side| {
            let [first, second] = ["first", "second"].map(|name| {
                let key = format!("{side} {name}");
                (path(&key, &format!("{name}.drv")), path(&format!("{key} out"), name))
            });
            for ((file, out), (input, _)) in [(&first, &second), (&second, &first)] {
                let text = format!(
                    "Derive([(\"out\",\"{out}\",\"\",\"\")],[(\"{input}\",[\"out\"])],[],\"x86_64-linux\",\"/bin/sh\",[],[])"
                );
                fs::write(store.path().join(file.replace("/nix/store/", "")), text).unwrap();
            }
            first.0.replace("/nix/store/", "")
        })
        .into();
    let (code, stdout, stderr) = store.run(&files[0], &files[1], &[]);
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains(&files[0]) && stderr.contains(&files[1]), "{stderr}");
    assert!(stderr.contains("differ, but none of their inputs does by itself"), "{stderr}");
}

#[test]
fn the_same_derivation_of_images_that_differ_is_named_as_such() {
    let store = Store::new();
    let base = base(&store);
    let (_, markdown, _) = store.run(&base, &base, &["--markdown"]);
    assert!(
        markdown.contains("- none: both derivations have the same outputs. The build does not repeat"),
        "{markdown}"
    );
}

#[test]
fn a_cause_far_down_is_shown_with_both_ends_of_the_way_to_it() {
    let store = Store::new();
    let top = |value| {
        let environment = [("value", value)];
        let leaf = Recipe { name: "leaf", environment: &environment, ..Recipe::default() };
        (0..200).fold(store.add(&leaf), |input, number| {
            let name = format!("package-with-a-long-name-{number}");
            store.add(&Recipe { name: &name, inputs: &[&input], ..Recipe::default() })
        })
    };
    let (base, head) = (top("1"), top("2"));
    let (_, markdown, _) = store.run(&base, &head, &["--markdown"]);
    let line = markdown.lines().find(|line| line.starts_with("- ")).unwrap();
    let expected = "- `leaf`: `value: 1 → 2` (input of `package-with-a-long-name-199` > `package-with-a-long-name-198` > \
                    196 more > `package-with-a-long-name-1` > `package-with-a-long-name-0`)";
    assert_eq!(line, expected);
    // Programs get all of it.
    assert_eq!(store.packages(&base, &head)[0]["via"].as_array().unwrap().len(), 200);
}

#[test]
fn a_comment_shows_pipes_as_they_are() {
    let store = Store::new();
    let image = |script| {
        let environment = [("installPhase", script)];
        store.add(&Recipe { name: "image", environment: &environment, ..Recipe::default() })
    };
    let (_, markdown, _) = store.run(&image("a | b"), &image("a | c"), &["--markdown"]);
    assert!(markdown.contains("- `image`: `installPhase: a | b → a | c`\n"), "{markdown}");
}

#[test]
fn another_output_of_the_same_input_is_a_cause() {
    let store = Store::new();
    let input = store.add(&Recipe { name: "tool", ..Recipe::default() });
    let base = store.add(&Recipe { name: "image", inputs: &[&input], ..Recipe::default() });
    let text = fs::read_to_string(store.path().join(&base)).unwrap();
    let other = path("other", "image");
    let text = text.replace(&store.output(&base), &other).replace("[\"out\"]", "[\"dev\"]");
    let head = path("other.drv", "image.drv").replace("/nix/store/", "");
    fs::write(store.path().join(&head), text).unwrap();
    assert_eq!(store.packages(&base, &head)[0]["what"], json!(["other outputs of input tool"]));
}

#[test]
fn another_name_of_the_same_package_is_a_cause() {
    let store = Store::new();
    let environment = [("pname", "tool"), ("version", "1.0")];
    let image = |name| {
        let tool = store.add(&Recipe { name, environment: &environment, ..Recipe::default() });
        store.add(&Recipe { name: "image", inputs: &[&tool], ..Recipe::default() })
    };
    let expected = json!([{ "name": "tool", "versions": null, "what": ["name tool-1.0 → tool-1.0-static"], "via": ["image"] }]);
    assert_eq!(store.packages(&image("tool-1.0"), &image("tool-1.0-static")), expected);
}

#[test]
fn derivations_that_did_not_make_the_images_are_trouble() {
    let store = Store::new();
    let base = base(&store);
    let head = store.image("6.12.95", BASE[1], BASE[2], BASE[3]);
    let other = store.image(BASE[0], "1.96.0", BASE[2], BASE[3]);
    let images = [store.provenance(&base, 0), store.provenance(&head, 1)];
    for (of_base, of_head, wrong, image) in [
        (&head, &base, &head, "base.json"),
        (&other, &head, &other, "base.json"),
        (&base, &other, &other, "head.json"),
    ] {
        let (code, stdout, stderr) = store.run_on(&images, &["--derivations", of_base, of_head]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        let problem = format!("{wrong} does not make what {image} was made of (/nix/store/");
        assert!(stderr.contains(&problem) && stderr.contains("swapped"), "{stderr}");
    }
    assert_eq!(store.run_on(&images, &["--derivations", &base, &head]).0, 1);
}

#[test]
fn derivations_that_cannot_be_matched_with_the_images_explain_no_pcr() {
    let store = Store::new();
    let base = base(&store);
    let head = store.image("6.12.95", BASE[1], BASE[2], BASE[3]);
    let (base_image, head_image) = (store.provenance(&base, 0), store.provenance(&head, 1));
    let pcrs = |image: &Value| image["pcrs"].clone();
    let mut elsewhere = head_image.clone();
    elsewhere["inputs"][1]["source"] = json!("target/inputs/enclave");
    let mut silent = head_image.clone();
    silent["inputs"] = json!([]);
    for images in [
        [pcrs(&base_image), head_image.clone()],
        [base_image.clone(), pcrs(&head_image)],
        [base_image.clone(), elsewhere],
        [base_image.clone(), silent],
    ] {
        let derivations = ["--derivations", &base, &head];
        let (code, markdown, stderr) = store.run_on(&images, &[&derivations[..], &["--markdown"]].concat());
        assert_eq!(code, 1, "{stderr}");
        let headline = markdown.lines().find(|line| line.starts_with("###")).unwrap();
        assert!(!headline.contains("linux"), "{markdown}");
        assert!(markdown.contains("- `linux` `6.12.94` → `6.12.95`"), "{markdown}");
        assert!(markdown.contains("were not matched with the images"), "{markdown}");
        let (_, stdout, stderr) = store.run_on(&images, &derivations);
        assert!(stderr.contains("were not matched with the images"), "{stderr}");
        assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["packages_are_matched"], false);
    }
    let (_, markdown, _) = store.run(&base, &head, &["--markdown"]);
    assert!(!markdown.contains("were not matched"), "{markdown}");
}

//! What must hold for the files of the tasks alone: what one task has from another is the same.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use cargo_lock::{Lockfile, Package};

/// The folders with a Rust program, each of which is the context of an image.
const PROGRAMS: [&str; 5] = [
    "task0",
    "task1",
    "task2/back-end",
    "task3/back-end",
    "task6/back-end",
];

const FRONT_ENDS: [&str; 4] = [
    "task2/front-end",
    "task3/front-end",
    "task5/front-end",
    "task6/front-end",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn same(one: &str, other: &str) {
    assert!(read(one) == read(other), "{one} and {other} differ");
}

#[test]
fn the_program_of_task2_is_that_of_task1() {
    same("task1/src/main.rs", "task2/back-end/src/main.rs");
    for file in ["Cargo.toml", "Dockerfile"] {
        let task1 = read(&format!("task1/{file}")).replace("task1-api", "task2-api");
        assert_eq!(task1, read(&format!("task2/back-end/{file}")), "{file}");
    }
}

#[test]
fn the_pages_have_one_look() {
    for other in &FRONT_ENDS[1..] {
        for file in ["html/404.html", "html/icon.svg"] {
            same(
                &format!("{}/{file}", FRONT_ENDS[0]),
                &format!("{other}/{file}"),
            );
        }
        let style = read(&format!("{}/html/style.css", FRONT_ENDS[0]));
        let others = read(&format!("{other}/html/style.css"));
        assert!(
            others.starts_with(&style),
            "{other}/html/style.css does not begin with the common style"
        );
    }
}

/// That of the final stack, which runs without root, is another.
#[test]
fn the_front_ends_of_the_tasks_are_made_alike() {
    for other in ["task3", "task5"] {
        same(
            "task2/front-end/Dockerfile",
            &format!("{other}/front-end/Dockerfile"),
        );
    }
}

#[test]
fn the_error_page_of_the_proxy_has_the_same_look() {
    same(
        "task2/front-end/html/style.css",
        "task6/proxy/html/error/style.css",
    );
}

#[test]
fn the_pages_ask_no_other_host() {
    for front_end in FRONT_ENDS {
        for entry in fs::read_dir(root().join(front_end).join("html")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            // The API of task 3, and the name of a vocabulary, which nobody fetches.
            let text = text
                .replace("http://localhost:5252/", "")
                .replace("http://www.w3.org/2000/svg", "");
            for scheme in ["http://", "https://", "=\"//", "url(//"] {
                assert!(!text.contains(scheme), "{} has {scheme}", path.display());
            }
        }
    }
}

/// What `.ci/base-images` does when `docker pull` fails with this output.
#[track_caller]
fn failed_pull(pull: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let docker = folder.path().join("docker");
    let program = format!(
        "#!/bin/sh\ncase $1 in version) ;; pull) printf '%s\\n' '{pull}'; exit 1 ;; *) exit 1 ;; esac\n"
    );
    fs::write(&docker, program).unwrap();
    fs::set_permissions(&docker, Permissions::from_mode(0o755)).unwrap();
    let path = env::var("PATH").unwrap();
    let output = Command::new(root().join(".ci/base-images"))
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_pull_that_breaks_off_is_no_reason_for_a_stand_in() {
    for error in [
        "latest: Pulling from library/ubuntu\nError: Get \"https://registry/blobs/1\": net/http: timeout",
        "Error response from daemon: toomanyrequests: You have reached your pull rate limit",
        "Error response from daemon: Get \"https://registry/v2/\": unauthorized",
    ] {
        let text = failed_pull(error);
        let reason = error.lines().last().unwrap();
        assert!(text.contains(reason), "{text}");
        assert!(text.contains("cannot pull ubuntu:latest"), "{text}");
        assert!(!text.contains("stand-in"), "{text}");
    }
}

/// Each image is built with `--locked` from a folder of its own, so each folder has the part of
/// the workspace's `Cargo.lock` that its program needs.
#[test]
fn each_lock_file_is_a_slice_of_the_workspace() {
    let all = Lockfile::load(root().join("Cargo.lock")).unwrap();
    for folder in PROGRAMS {
        let path = root().join(folder).join("Cargo.lock");
        if env::var_os("UPDATE_LOCKS").is_some() {
            fs::write(&path, slice(folder)).unwrap();
        }
        let stale = stale(&all, &Lockfile::load(&path).unwrap());
        assert_eq!(
            stale, None,
            "{folder}/Cargo.lock is not what the root Cargo.lock says. \
             Bring it up to date: UPDATE_LOCKS=1 cargo test --test files"
        );
    }
}

/// The first package of `slice` that `all` does not have so, or that lacks a dependency. A program
/// has all its dependencies, and another package at least one version of those it is locked with.
fn stale(all: &Lockfile, slice: &Lockfile) -> Option<Package> {
    let same = |one: &Package, other: &Package| {
        let is_program = one.source.is_none();
        one.name == other.name
            && one.version == other.version
            && one.source == other.source
            && one.checksum == other.checksum
            && (!is_program || one.dependencies == other.dependencies)
    };
    let in_slice =
        |name: &cargo_lock::Dependency| slice.packages.iter().any(|package| name.matches(package));
    slice
        .packages
        .iter()
        .find(|package| {
            !all.packages.iter().any(|other| same(package, other))
                || !package.dependencies.iter().all(in_slice)
        })
        .cloned()
}

/// The lock file that cargo makes for the program in `folder` alone, with the versions of the
/// workspace.
fn slice(folder: &str) -> String {
    let alone = tempfile::tempdir().unwrap();
    let folder = root().join(folder);
    fs::copy(folder.join("Cargo.toml"), alone.path().join("Cargo.toml")).unwrap();
    fs::copy(root().join("Cargo.lock"), alone.path().join("Cargo.lock")).unwrap();
    // cargo wants a program to lock the dependencies of; any will do.
    fs::create_dir(alone.path().join("src")).unwrap();
    fs::write(alone.path().join("src/main.rs"), "fn main() {}").unwrap();
    let status = Command::new(env!("CARGO"))
        .args(["update", "--quiet", "--workspace"])
        .current_dir(alone.path())
        .status()
        .unwrap();
    assert!(status.success(), "cargo update: {status}");
    fs::read_to_string(alone.path().join("Cargo.lock")).unwrap()
}

//! Claims about the files alone: what one task takes from another is the same, and versions agree.

use std::{
    collections::BTreeMap,
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
    "task3/back-end",
    "stack/back-end",
    "examples/notes",
];

const FRONT_ENDS: [&str; 5] = [
    "task2/front-end",
    "task3/front-end",
    "task5/front-end",
    "stack/front-end",
    "examples/notes",
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

/// So the image of task 2 is built from the layers of task 1.
#[test]
fn the_back_end_of_task2_is_that_of_task1() {
    for file in [
        ".dockerignore",
        "Cargo.lock",
        "Cargo.toml",
        "Dockerfile",
        "src/main.rs",
    ] {
        same(&format!("task1/{file}"), &format!("task2/back-end/{file}"));
    }
}

#[test]
fn the_pages_have_one_look() {
    for other in &FRONT_ENDS[1..] {
        // The final stack's 404 page is the proxy's, and so is that of notes.
        let files = match *other {
            "stack/front-end" | "examples/notes" => &["html/icon.svg"][..],
            _ => &["html/icon.svg", "html/404.html"],
        };
        for file in files {
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

/// A lesson is the difference from the task before it.
#[test]
fn task6_adds_few_lines_to_task5() {
    let diff = Command::new("diff")
        .args(["--recursive", "task5/proxy", "task6/proxy"])
        .current_dir(root())
        .output()
        .expect("diff runs");
    let text = String::from_utf8(diff.stdout).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(['<', '>']));
    let lines = lines.count();
    assert!((1..=25).contains(&lines), "{lines} lines differ:\n{text}");
}

/// Not that of the final stack, which runs without root.
#[test]
fn the_lessons_have_one_order() {
    for task in 0..=6 {
        let readme = read(&format!("task{task}/README.md"));
        let headings: Vec<_> = readme
            .lines()
            .filter(|line| line.starts_with("## "))
            .collect();
        let missing = "## What is still missing for real use";
        let headings = headings.into_iter().filter(|&heading| heading != missing);
        let order = [
            "## New here",
            "## Do it",
            "## Break it",
            "## What you know now",
        ];
        assert!(headings.eq(order), "task{task}/README.md");
    }
}

#[test]
fn each_word_of_the_lessons_is_explained_once() {
    let mut explained = BTreeMap::new();
    for task in 0..=6 {
        let readme = read(&format!("task{task}/README.md"));
        let tables = readme
            .split("\n\n")
            .filter(|part| part.starts_with("| Word"));
        let rows = tables.flat_map(str::lines);
        let words = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
        for word in words {
            if let Some(before) = explained.insert(word.to_owned(), task) {
                panic!("task{task}/README.md: task{before}/README.md has explained `{word}`");
            }
        }
    }
    assert!(!explained.is_empty());
}

#[test]
fn the_front_page_fits_into_a_hundred_lines() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 100, "{lines}");
}

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
        "stack/proxy/html/error/style.css",
    );
}

#[test]
fn the_pages_load_nothing_from_other_hosts() {
    for front_end in FRONT_ENDS {
        for entry in fs::read_dir(root().join(front_end).join("html")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            // The API of task 3, and an XML namespace, which is not fetched.
            let text = text
                .replace("http://${location.hostname}:5252/", "")
                .replace("http://www.w3.org/2000/svg", "");
            for scheme in ["http://", "https://", "=\"//", "url(//"] {
                assert!(!text.contains(scheme), "{} has {scheme}", path.display());
            }
        }
    }
}

/// All files in Markdown, with their text.
fn documents() -> Vec<(String, String)> {
    let list = ["ls-files", "*.md"];
    let output = Command::new("git").args(list).current_dir(root()).output();
    let names = String::from_utf8(output.expect("git runs").stdout).unwrap();
    let documents: Vec<_> = (names.lines().map(|name| (name.to_owned(), read(name)))).collect();
    assert!(!documents.is_empty());
    documents
}

/// PowerShell has neither `NAME=value command` nor a backslash at the end of a line.
#[test]
fn commands_can_be_typed_in_powershell() {
    for (name, text) in documents() {
        // Every other part is a block.
        for block in text.split("```").skip(1).step_by(2) {
            let console = block.starts_with("console") || block.starts_with("sh\n");
            for line in block.lines().filter(|_| console) {
                let command = line.split_once("$ ").map_or(line, |(_, command)| command);
                let first = command.split(' ').next().unwrap_or_default();
                let sets = first.split_once('=').is_some_and(|(variable, _)| {
                    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
                    !variable.is_empty() && variable.chars().all(is_name)
                });
                // `--help` lists variables; these lines have several blanks.
                let listed = line.starts_with("  ");
                assert!(!sets || listed, "{name}: {line}");
                assert!(!line.ends_with('\\'), "{name}: {line}");
            }
        }
    }
}

/// A page shows the text of a block, but not the name of its file beside the language.
#[test]
fn each_block_with_a_file_follows_its_name() {
    let mut blocks = 0;
    for (name, text) in documents() {
        for section in text.split("\n## ") {
            let mut before = String::new();
            for line in section.lines() {
                let kind = line.strip_prefix("```").unwrap_or_default();
                if let Some((_, file)) = kind.split_once(' ')
                    && !kind.starts_with("console")
                {
                    let named = before.contains(&format!("`{file}`"));
                    assert!(
                        named,
                        "{name}: a block for {file}, which is not named above it"
                    );
                    blocks += 1;
                }
                before += line;
                before.push('\n');
            }
        }
    }
    assert!(blocks > 0);
}

/// The files that name base images: Dockerfiles, compose files, and the script that provides the images.
fn files_with_images() -> Vec<PathBuf> {
    let list = ["ls-files", "*Dockerfile", "*.yml", ".ci/base-images"];
    let output = Command::new("git").args(list).current_dir(root()).output();
    let output = output.expect("git runs");
    assert!(output.status.success(), "git ls-files: {output:?}");
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().map(|name| root().join(name)).collect()
}

/// BuildKit takes files of two build contexts for the same if name of the folder, path, size and time agree, and a
/// checkout gives many files the same time. It would build one task with a file of another.
#[test]
fn contexts_with_one_name_have_no_different_files_of_one_size() {
    let list = ["ls-files", "task2", "task3", "task5", "task6", "stack"];
    let output = Command::new("git").args(list).current_dir(root()).output();
    let names = String::from_utf8(output.expect("git runs").stdout).unwrap();
    let mut seen = BTreeMap::<(String, usize), (String, String)>::new();
    for name in names.lines() {
        let Some((_, in_context)) = name.split_once('/') else {
            continue;
        };
        let Ok(text) = fs::read_to_string(root().join(name)) else {
            continue;
        };
        let key = (in_context.to_owned(), text.len());
        let (other, same) = seen
            .entry(key)
            .or_insert_with(|| (name.to_owned(), text.clone()));
        assert!(
            *same == text,
            "{name} and {other} have one size: change one"
        );
    }
    assert!(!seen.is_empty());
}

#[test]
fn each_base_image_has_one_version() {
    const IMAGES: [&str; 9] = [
        "rust:",
        "nginx:",
        "debian:trixie",
        "debian:bookworm",
        "ubuntu:",
        "postgres:",
        "certbot/certbot:",
        "prom/prometheus:",
        "nginx/nginx-prometheus-exporter:",
    ];
    let files = files_with_images();
    for image in IMAGES {
        let mut versions = BTreeMap::<String, &Path>::new();
        for file in &files {
            let text = fs::read_to_string(file).unwrap();
            let words = text.split(|c: char| c.is_whitespace() || "\"');".contains(c));
            let tags = words.filter_map(|word| word.strip_prefix(image));
            let tags = tags.filter(|tag| !tag.is_empty() && *tag != "*");
            versions.extend(tags.map(|tag| (tag.to_owned(), file.as_path())));
        }
        assert_eq!(versions.len(), 1, "{image} {versions:?}");
    }
}

/// The output of `.ci/base-images` when `docker pull` fails with this error.
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

/// Each image is built with `--locked` from its own folder, so each folder has its slice of the workspace's
/// `Cargo.lock`.
#[test]
fn each_lock_file_is_a_slice_of_the_workspace() {
    let all = Lockfile::load(root().join("Cargo.lock")).unwrap();
    for folder in PROGRAMS {
        let path = root().join(folder).join("Cargo.lock");
        if env::var_os("UPDATE_LOCKS").is_some() {
            fs::write(&path, slice(folder)).unwrap();
        }
        let stale = stale(&all, &Lockfile::load(&path).unwrap(), &program(folder));
        assert_eq!(
            stale, None,
            "{folder}/Cargo.lock is not what the root Cargo.lock says. \
             Bring it up to date: UPDATE_LOCKS=1 cargo test --test files"
        );
    }
}

/// The name of the package in a folder.
fn program(folder: &str) -> String {
    let text = read(&format!("{folder}/Cargo.toml"));
    let name = text.split('"').nth(1);
    name.expect("it begins with its name").to_owned()
}

/// The first package of `slice` that differs from `all`, or lacks a dependency. The program lists all its
/// dependencies, other packages at least one version of each.
fn stale(all: &Lockfile, slice: &Lockfile, program: &str) -> Option<Package> {
    let same = |one: &Package, other: &Package| {
        let is_program = one.name.as_str() == program;
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

/// The lock file of the program in `folder` alone, with the versions of the workspace.
fn slice(folder: &str) -> String {
    let alone = tempfile::tempdir().unwrap();
    let folder = root().join(folder);
    // Its own folder is not that of the crates which it names by path.
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let top = root().canonicalize().unwrap();
    let manifest = manifest.replace("\"../../", &format!("\"{}/", top.display()));
    fs::write(alone.path().join("Cargo.toml"), manifest).unwrap();
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

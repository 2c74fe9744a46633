//! The API of the notes, and the containers of the stack.

use std::{fs, process::Command, time::Duration};

use harness::{
    container::{Container, stop},
    http,
    project::Project,
    tools::{Tools, docker, inspect, output},
    wait,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::fixture::{
    NOTES, alone, json, on_notes, password, password_file, project, ready, send, sql, start,
};

const IMAGE: &str = "examples/hello-notes:stack";

/// As chosen by a client.
const ID: &str = "0b5c1c4e-2f0a-4d3b-9d5e-6a7b8c9d0e1f";

pub fn trials() -> Vec<Trial> {
    vec![
        on_notes("notes are created, read, replaced and deleted", life),
        on_notes("the list has pages, newest first", pages),
        on_notes(
            "wrong requests get an error that names what was expected",
            wrong,
        ),
        on_notes("the password is in its file only", secret),
        on_notes("only the API reaches the database", network),
        on_notes("the database runs without rights to spare", rights),
        on_notes("the image has less than 6 MB", size),
    ]
}

/// Cases with stacks of their own.
pub fn others() -> Vec<Trial> {
    vec![
        alone("ten replicas start at once, and share the connections", ten),
        alone("docker-compose 1 starts it too", version_1),
        alone("a wrong setting ends the program", settings),
    ]
}

fn life(_: &Project) {
    let created = send("POST", "", r#"{"title":"Milk","text":"Two litres"}"#);
    assert_eq!(created.status, 201, "{created:?}");
    let note = json(&created);
    let id = note["id"].as_str().unwrap();
    assert_eq!(created.header("location"), format!("/api/notes/{id}"));
    assert_eq!(note["title"], "Milk");
    let read = send("GET", &format!("/{id}"), "");
    assert_eq!((read.status.as_u16(), json(&read)), (200, note.clone()));

    let path = format!("/{ID}");
    let body = r#"{"title":"Ünïcödé 🐋","text":""}"#;
    let stored = send("PUT", &path, body);
    assert_eq!(stored.status, 201, "{stored:?}");
    assert_eq!(stored.header("location"), format!("/api/notes/{ID}"));
    let again = send("PUT", &path, body);
    assert_eq!((again.status.as_u16(), json(&again)), (200, json(&stored)));
    assert_eq!(json(&again)["title"], "Ünïcödé 🐋");
    let replaced = send("PUT", &path, r#"{"title":"New","text":"x"}"#);
    assert_eq!(replaced.status, 200);
    assert_eq!(json(&send("GET", &path, ""))["title"], "New");

    for path in [path, format!("/{id}")] {
        for _ in 0..2 {
            assert_eq!(send("DELETE", &path, "").status, 204);
        }
        let missing = send("GET", &path, "");
        assert_eq!(missing.status, 404);
        let error = json!({"status": 404, "error": "There is no note with this id."});
        assert_eq!(json(&missing), error);
    }
}

fn pages(project: &Project) {
    sql(project, "DELETE FROM notes");
    for number in 1..=45 {
        let body = json!({"title": number.to_string(), "text": "x".repeat(10_000)});
        assert_eq!(send("POST", "", &body.to_string()).status, 201);
    }
    let mut titles = vec![];
    let mut sizes = vec![];
    let mut query = String::new();
    loop {
        let page = json(&send("GET", &query, ""));
        let notes = page["notes"].as_array().unwrap();
        sizes.push(notes.len());
        titles.extend(
            notes
                .iter()
                .map(|note| note["title"].as_str().unwrap().to_owned()),
        );
        // Not on this page, nor twice on the next.
        assert_eq!(
            send("POST", "", r#"{"title":"newer","text":""}"#).status,
            201
        );
        match page["next"].as_str() {
            Some(next) => query = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(sizes, [20, 20, 5]);
    assert!(
        titles
            .into_iter()
            .eq((1..=45).rev().map(|number: i32| number.to_string()))
    );
    let two = json(&send("GET", "?limit=2", ""));
    assert_eq!(two["notes"].as_array().unwrap().len(), 2);
}

fn wrong(_: &Project) {
    let note = format!("/{ID}");
    let long = json!({"title": "x".repeat(101), "text": "x".repeat(10_001)}).to_string();
    let fields = "expected 1 to 100 characters, got ";
    for (method, path, body, status, expected) in [
        (
            "POST",
            "",
            "{}",
            422,
            json!({"title": format!("{fields}nothing"), "text": "expected 0 to 10000 characters, got nothing"}),
        ),
        (
            "PUT",
            &note,
            &long,
            422,
            json!({"title": format!("{fields}101"), "text": "expected 0 to 10000 characters, got 10001"}),
        ),
        (
            "POST",
            "",
            r#"{"title":"","text":""}"#,
            422,
            json!({"title": format!("{fields}0")}),
        ),
        (
            "POST",
            "",
            r#"{"title":5,"text":""}"#,
            422,
            json!({"title": format!("{fields}no text")}),
        ),
        (
            "POST",
            "",
            r#"{"title":"\u0000","text":""}"#,
            422,
            json!({"title": format!("{fields}U+0000")}),
        ),
        ("POST", "", "[]", 422, Value::Null),
        ("POST", "", "{", 400, Value::Null),
        (
            "PUT",
            "/1",
            "{}",
            400,
            json!("the id is '1': expected a UUID"),
        ),
        (
            "GET",
            "?limit=101",
            "",
            400,
            json!("limit is '101': expected a number from 1 to 100"),
        ),
        (
            "GET",
            "?before=x",
            "",
            400,
            json!("before is 'x': expected a number from 1 to 9223372036854775807"),
        ),
        (
            "PATCH",
            "",
            "{}",
            405,
            json!("/api/notes does not answer PATCH; the header Allow says what it answers."),
        ),
        (
            "GET",
            "/",
            "",
            404,
            json!("There is nothing at /api/notes/."),
        ),
    ] {
        let answer = send(method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        let error = json(&answer);
        assert_eq!(error["status"], status);
        match &expected {
            Value::Null => assert!(error["error"].is_string(), "{error}"),
            Value::String(_) => assert_eq!(error["error"], expected),
            _ => assert_eq!(error["fields"], expected),
        }
    }
    let plain = http::send_body(
        &http::client(),
        "POST",
        NOTES,
        &[("content-type", "text/plain")],
        "x",
    );
    assert_eq!(json(&plain.unwrap())["status"], 415);
    // The API's limit, and the proxy's.
    for size in [200_000, 2_000_000] {
        let answer = send("POST", "", &"x".repeat(size));
        assert_eq!(answer.status, 413, "{answer:?}");
        assert_eq!(json(&answer)["status"], 413);
    }
}

fn secret(project: &Project) {
    let password = password();
    let password = password.trim();
    // An error that is about the database.
    let database = project.container("database");
    docker(&["stop", &database]);
    let answer = send("GET", "", "");
    assert_eq!(answer.status, 503);
    docker(&["start", &database]);
    ready(project, 2);
    let mut texts = vec![format!("{answer:?}")];
    for service in ["api", "database", "front-end", "proxy"] {
        for id in project.containers(service) {
            texts.push(docker(&["inspect", &id]));
            texts.push(docker(&["logs", &id]));
            texts.push(docker(&[
                "history",
                "--no-trunc",
                &inspect(&id, "{{.Image}}"),
            ]));
        }
    }
    texts.push(project.run("docker-compose config"));
    texts.push(project.run("docker-compose exec -T database env"));
    for text in texts {
        assert!(!text.contains(password), "{text}");
    }
    let readable =
        project.run("docker-compose exec -T database cat /run/secrets/database-password");
    assert_eq!(readable.trim(), password);
}

fn network(project: &Project) {
    let database = project.container("database");
    let address = inspect(
        &database,
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
    );
    // From a service's network, whether or not the port is open. curl's exit code 52 is an empty reply.
    let reaches = |container: &str| {
        let network = format!("container:{container}");
        let url = format!("http://{address}:5432");
        let curl = ["curl", "--silent", "--max-time", "2", &url];
        let run = ["run", "--rm", "--network", &network, "nginx:1.30"];
        let error = output(Command::new("docker").args(run).args(curl)).unwrap_err();
        error.starts_with("exit status: 52")
    };
    let api = project.containers("api").into_iter().next().unwrap();
    assert!(reaches(&api));
    for service in ["front-end", "proxy"] {
        assert!(!reaches(&project.container(service)), "{service}");
    }
    // Nor does it reach anything but the API.
    let names = inspect(
        &database,
        "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}",
    );
    assert_eq!(names.split_whitespace().count(), 1, "{names}");
    assert_eq!(inspect(names.trim(), "{{.Internal}}"), "true");
}

fn rights(project: &Project) {
    let database = project.container("database");
    let options = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} \
                   {{.Config.User}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}";
    assert_eq!(
        inspect(&database, options),
        "true [ALL] [no-new-privileges:true] 999:999 1073741824 128"
    );
    let status = project.run("docker-compose exec -T database cat /proc/1/status");
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
    // It writes all its pages and ends.
    let (code, time) = stop(&database);
    assert_eq!(code, "0");
    assert!(time.as_secs() < 10, "{time:?}");
    let logs = docker(&["logs", &database]);
    assert!(
        logs.trim_end().ends_with("database system is shut down"),
        "{logs}"
    );
    docker(&["start", &database]);
}

fn size(_: &Project) {
    let size: u64 = inspect(IMAGE, "{{.Size}}").parse().unwrap();
    assert!(size < 6_000_000, "{size}");
    assert_eq!(inspect(IMAGE, "{{.Config.User}}"), "65534:65534");
}

/// With an empty volume: all of them would create the table.
fn ten() {
    let project = start(project(Tools::Current), 10);
    for id in project.containers("api") {
        assert_eq!(inspect(&id, "{{.RestartCount}}"), "0");
    }
    let migrations = sql(&project, "SELECT count(*) FROM _sqlx_migrations");
    assert_eq!(migrations.trim(), "1");
    // 80 clients use all connections of all replicas, and more wait.
    let clients: Vec<_> = (0..80)
        .map(|_| {
            std::thread::spawn(|| {
                (0..20)
                    .map(|_| send("GET", "", "").status)
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let statuses: Vec<_> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .collect();
    let bad = statuses
        .iter()
        .filter(|status| !matches!(status.as_u16(), 200 | 503));
    assert_eq!(bad.count(), 0, "{statuses:?}");
    // Those of other machines, without the one that counts.
    let count = "SELECT count(*) FROM pg_stat_activity WHERE client_addr IS NOT NULL";
    let connections: usize = sql(&project, count).trim().parse().unwrap();
    println!("{connections} connections of ten replicas");
    assert!((10..=40).contains(&connections), "{connections}");
}

fn version_1() {
    // The image is there: the first cases have built it.
    let project = project(Tools::Legacy);
    project.run("docker-compose up -d");
    ready(&project, 2);
    assert_eq!(send("POST", "", r#"{"title":"a","text":""}"#).status, 201);
}

fn settings() {
    const NAME: &str = "API_DATABASE_PASSWORD_FILE";
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, "\n").unwrap();
    let volume = format!("{}:/secrets:ro", folder.path().display());
    for (setting, expected) in [
        (
            "",
            format!("error: {NAME} is not set: expected the path of a file"),
        ),
        (
            "/none",
            format!(
                "error: {NAME} is '/none': expected a file with the password: No such file or directory (os error 2)"
            ),
        ),
        (
            "/secrets/empty",
            format!(
                "error: {NAME} is '/secrets/empty': expected a file with the password: it is empty"
            ),
        ),
    ] {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--volume", &volume]);
        if !setting.is_empty() {
            command.arg("--env").arg(format!("{NAME}={setting}"));
        }
        let error = output(command.arg(IMAGE)).unwrap_err();
        assert_eq!(error, format!("exit status: 2\n{expected}\n"));
    }
    let help = docker(&["run", "--rm", IMAGE, "--help"]);
    assert!(help.starts_with("An HTTP API for notes"), "{help}");
    assert!(
        help.contains(NAME) && help.contains("API_REQUEST_TIMEOUT"),
        "{help}"
    );

    // A migration that the database refuses: the replica ends, and says why.
    let project = start(project(Tools::Current), 1);
    project.run("docker-compose stop api");
    sql(&project, "DROP TABLE _sqlx_migrations");
    let network = inspect(
        &project.container("database"),
        "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}",
    );
    let file = password_file().display().to_string();
    let volume = format!("{file}:/password:ro");
    let password = format!("{NAME}=/password");
    let options = [
        "--network",
        &network,
        "--volume",
        &volume,
        "--env",
        &password,
    ];
    let replica = Container::run_command("refused", IMAGE, &options, &[]);
    wait::until(Duration::from_secs(10), || {
        match inspect(&replica.name, "{{.State.Status}} {{.State.ExitCode}}").as_str() {
            "exited 1" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let logs = replica.logs();
    assert!(
        logs.contains("a migration failed: ") && logs.contains("already exists"),
        "{logs}"
    );
}

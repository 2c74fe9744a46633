//! Fixtures: a case starts alone, or on a fixture that it shares with the cases around it.

use std::{process::Command, sync::OnceLock, time::Duration};

use harness::{
    browser, http,
    project::Project,
    shared,
    tools::{Tools, inspect, output},
    trial::{self, Missing},
    wait,
};
use libtest_mimic::Trial;

/// The ports that the tasks publish on this machine.
const PORTS: [u16; 3] = [80, 5252, 9000];

/// Time for the stack to recover from the previous case.
const READY: Duration = Duration::from_secs(20);

/// What a case needs besides the tools.
#[derive(Clone, Copy)]
pub enum Need {
    /// axe-core, for the browser.
    Axe,
    /// The commands of a README use it.
    Curl,
}

fn missing(tools: Tools, need: Option<Need>) -> Option<Missing> {
    // Cached, because docker-compose 1 takes half a second to start.
    static MISSING: [OnceLock<Option<Missing>>; 2] = [const { OnceLock::new() }; 2];
    let tools = *MISSING[tools as usize].get_or_init(|| tools.missing());
    tools.or_else(|| match need {
        None => None,
        Some(Need::Curl) => {
            let works = output(Command::new("curl").arg("--version")).is_ok();
            (!works).then_some(Missing::Installable("no curl"))
        }
        Some(Need::Axe) => browser::axe_missing(),
    })
}

fn case(
    tools: Tools,
    name: &str,
    need: Option<Need>,
    test: impl FnOnce() + Send + 'static,
) -> Trial {
    let missing = move || missing(tools, need);
    trial::trial(format!("{name} [{tools}]"), missing, test)
}

/// A case without a shared fixture.
pub fn with(tools: Tools, name: &str, test: fn(Tools)) -> Trial {
    with_need(tools, name, None, test)
}

/// A case without a shared fixture that needs something.
pub fn with_need(tools: Tools, name: &str, need: Option<Need>, test: fn(Tools)) -> Trial {
    case(tools, name, need, move || {
        shared::end();
        trial::assert_free(&PORTS);
        test(tools);
    })
}

/// A shared fixture: its name, and the function that starts it.
pub struct Shared<T>(pub &'static str, pub fn(Tools) -> T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

/// A case on a shared fixture.
pub fn on<T: Send + 'static>(
    tools: Tools,
    name: &str,
    Shared(of, start): Shared<T>,
    test: fn(&T),
) -> Trial {
    case(tools, name, None, move || {
        let start = || {
            trial::assert_free(&PORTS);
            start(tools)
        };
        shared::with(&format!("{of} {tools}"), start, test);
    })
}

/// The final stack, with these settings and this many replicas.
#[derive(Clone, Copy)]
pub struct Stack {
    pub replicas: usize,
    pub settings: &'static [(&'static str, &'static str)],
}

impl Stack {
    /// The stack with its defaults.
    pub fn of(replicas: usize) -> Self {
        Self {
            replicas,
            settings: &[],
        }
    }

    /// Builds and starts it.
    #[track_caller]
    pub fn start(self, tools: Tools) -> Project {
        let mut project = Project::new(tools, ".");
        for (name, value) in self.settings {
            project = project.with(name, value);
        }
        project.run(&format!(
            "docker-compose up -d --build --scale api={}",
            self.replicas
        ));
        self.wait(&project);
        project
    }

    /// Restarts what the previous case has stopped, and restores the number of replicas.
    #[track_caller]
    fn restore(self, project: &Project) {
        let counts = ["api", "front-end", "proxy"].map(|service| project.containers(service).len());
        if counts != [self.replicas, 1, 1] {
            // One that hung is unhealthy until its next check, and `up` does not wait for that.
            for id in ["api", "front-end"].map(|service| project.containers(service)) {
                id.iter().for_each(|id| healthy(id));
            }
            project.run(&format!(
                "docker-compose up -d --no-recreate --scale api={}",
                self.replicas
            ));
        }
        self.wait(project);
    }

    /// Waits until every replica responds.
    #[track_caller]
    fn wait(self, project: &Project) {
        let expected = project.host_names("api");
        wait::until(READY, || {
            let client = http::client();
            let answers = (0..self.replicas)
                .map(|_| http::send(&client, "GET", "http://localhost/api/hello", &[]));
            let answers: Vec<_> = answers
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string())?;
            let found = answers
                .iter()
                .map(|answer| answer.header("x-served-by").to_owned())
                .collect();
            match expected == found {
                true => Ok(()),
                false => Err(format!("{found:?}, expected {expected:?}")),
            }
        });
    }
}

/// Waits until a container is healthy.
#[track_caller]
pub fn healthy(id: &str) {
    wait::until(READY, || {
        match inspect(id, "{{.State.Health.Status}}").as_str() {
            "healthy" => Ok(()),
            other => Err(format!("{id} is {other}")),
        }
    });
}

/// A case on a shared stack.
pub fn on_stack(tools: Tools, name: &str, stack: Stack, test: fn(&Project)) -> Trial {
    on_stack_with(tools, name, None, stack, test)
}

/// A case on a shared stack that needs something.
pub fn on_stack_with(
    tools: Tools,
    name: &str,
    need: Option<Need>,
    stack: Stack,
    test: fn(&Project),
) -> Trial {
    case(tools, name, need, move || {
        let start = || {
            trial::assert_free(&PORTS);
            stack.start(tools)
        };
        let name = format!("stack {:?} {tools}", stack.settings);
        shared::with(&name, start, |project| {
            stack.restore(project);
            test(project);
        });
    })
}

//! A site: the final stack with HTTPS, and an ACME CA.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use harness::{
    load::Requests,
    project::Project,
    tools::{Tools, docker, output},
    wait,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;

/// Host name of the site, which the CA resolves with the engine's DNS.
pub const HOST: &str = "stack.test";

/// Time from `up` until HTTPS responds, with an empty volume.
pub const FIRST_START: Duration = Duration::from_secs(60);

/// Time until a renewed certificate is served.
pub const RENEWED: Duration = Duration::from_secs(90);

/// The compose files, for `COMPOSE_FILE`.
pub const HTTPS: &str = "docker-compose.yml:deploy/https.yml:tests/deploy/pebble.yml";
pub const HTTPS_AND_METRICS: &str =
    "docker-compose.yml:deploy/https.yml:deploy/metrics.yml:tests/deploy/pebble.yml";

/// The CA's image, and a file with the certificate of its own server.
pub struct Ca {
    folder: TempDir,
}

impl Ca {
    pub fn build(tools: Tools) -> Self {
        tools.run(
            "tests/deploy",
            "docker build --tag acceptance-pebble pebble",
        );
        let certificate = docker(&[
            "run",
            "--rm",
            "--entrypoint=cat",
            "acceptance-pebble",
            "certificate.pem",
        ]);
        let folder = tempfile::tempdir().unwrap();
        let ca = Self { folder };
        fs::write(ca.certificate(), certificate).unwrap();
        ca
    }

    /// The path of the certificate file.
    pub fn certificate(&self) -> String {
        let path = self.folder.path().join("pebble.pem");
        path.display().to_string()
    }
}

/// The variables of a site, as in `.env`.
pub fn settings(ca: &Ca) -> [(&'static str, String); 4] {
    [
        ("DOMAIN", HOST.to_owned()),
        ("EMAIL", format!("admin@{HOST}")),
        ("ACME_SERVER", "https://pebble:14000/dir".to_owned()),
        ("PEBBLE_CERTIFICATE", ca.certificate()),
    ]
}

/// The stack with HTTPS. Starts nothing yet.
pub struct Site {
    pub project: Project,
    _ca: Ca,
}

impl Site {
    /// A site of these compose files.
    pub fn new(tools: Tools, files: &str) -> Self {
        let ca = Ca::build(tools);
        let mut project = Project::new(tools, ".").with("COMPOSE_FILE", files);
        for (name, value) in settings(&ca) {
            project = project.with(name, value);
        }
        Self { project, _ca: ca }
    }

    /// Sets a variable for every later command.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.project = self.project.with(name, value);
        self
    }

    /// Starts a site and waits for its first certificate.
    pub fn up(tools: Tools, files: &str) -> Self {
        let site = Self::new(tools, files);
        site.project.run("docker-compose build");
        let begin = Instant::now();
        site.project.run("docker-compose up -d");
        site.wait_for_https(FIRST_START.saturating_sub(begin.elapsed()));
        println!("HTTPS answers {:?} after up", begin.elapsed());
        site
    }

    /// Waits until HTTPS responds with a certificate of the CA.
    #[track_caller]
    pub fn wait_for_https(&self, limit: Duration) {
        wait::until(limit, || self.handshake().map(drop));
    }

    /// The root certificate of the CA, which is new after each start.
    pub fn root(&self) -> Result<String, String> {
        let pebble = self.project.containers("pebble");
        let pebble = pebble.first().ok_or("no CA runs")?;
        let network = format!("--network=container:{pebble}");
        let curl = ["curl", "--fail", "--silent", "--insecure"];
        let url = "https://127.0.0.1:15000/roots/0";
        let run = ["docker", "run", "--rm", &network, "nginx:1.30"];
        let words = [&run[..], &curl, &[url]].concat();
        output(Command::new(words[0]).args(&words[1..]))
    }

    /// A TLS configuration that trusts the CA.
    pub fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let root = CertificateDer::from_pem_slice(self.root()?.as_bytes());
        let mut roots = RootCertStore::empty();
        roots
            .add(root.map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        // A resumed session shows the old certificate.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// The certificate that is served.
    pub fn handshake(&self) -> Result<Vec<u8>, String> {
        self.handshake_as(self.client()?)
    }

    /// The certificate that is served to this client.
    pub fn handshake_as(&self, client: Arc<ClientConfig>) -> Result<Vec<u8>, String> {
        let try_to = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
            let host = ServerName::try_from(HOST)?;
            let stream = TcpStream::connect(("127.0.0.1", 443))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut stream = StreamOwned::new(ClientConnection::new(client, host)?, stream);
            stream.write_all(b"GET /api/hello HTTP/1.0\r\nhost: stack.test\r\n\r\n")?;
            let mut response = String::new();
            // nginx closes without a TLS close_notify, which rustls reports as an error.
            let _ = stream.read_to_string(&mut response);
            if !response.ends_with("Hello, World!") {
                return Err(response.into());
            }
            let chain = stream.conn.peer_certificates().ok_or("no certificate")?;
            Ok(chain[0].to_vec())
        };
        try_to().map_err(|error| error.to_string())
    }

    /// `GET /api/hello` over HTTPS by 16 clients.
    #[track_caller]
    pub fn requests(&self) -> Requests {
        let host = ServerName::try_from(HOST).unwrap();
        Requests {
            tls: Some((host, self.client().unwrap())),
            ..Requests::from("/api/hello")
        }
    }

    /// Runs curl against the site and returns its output.
    #[track_caller]
    pub fn curl(&self, arguments: &str) -> String {
        let root = tempfile::NamedTempFile::new().unwrap();
        fs::write(root.path(), self.root().unwrap()).unwrap();
        let resolve = format!("--resolve {HOST}:443:127.0.0.1 --resolve {HOST}:80:127.0.0.1");
        let line = format!(
            "curl --silent --show-error --cacert {} {resolve} {arguments}",
            root.path().display()
        );
        self.project.run(&line)
    }
}

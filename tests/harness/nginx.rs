//! A real Nginx with a configuration of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::eventually;
use super::process::{Process, free_address};

pub struct Nginx {
    _process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// With the configuration that `configuration` gives for an address, at which it has to listen.
    #[track_caller]
    pub fn start(configuration: impl Fn(SocketAddr) -> String) -> Self {
        for _ in 0..5 {
            let (address, folder) = (free_address(), TempDir::with_prefix("spikegate-nginx-").unwrap());
            // One process, so that it ends with its test.
            let mut command = command(folder.path(), &configuration(address), "daemon off; master_process off;");
            let mut process = Process::start("nginx", &mut command, folder.path());
            let listens = eventually("nginx listens", || match process.ended() {
                Some(_) => Some(false),
                None => TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok().then_some(true),
            });
            if listens {
                return Self { _process: process, address, _folder: folder };
            }
            let log = process.log();
            assert!(log.contains("in use"), "nginx ended at its start:\n{log}");
        }
        panic!("no nginx could be started");
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The output of `nginx -t` for a configuration.
pub fn check(configuration: &str) -> Output {
    let folder = TempDir::with_prefix("spikegate-nginx-").unwrap();
    command(folder.path(), configuration, "").arg("-t").stdin(Stdio::null()).output().unwrap()
}

/// Nginx in a folder of its own: Debian's keeps its files where only root may write.
fn command(folder: &Path, configuration: &str, directives: &str) -> Command {
    let own = "http {\n    access_log off;\n    client_body_temp_path body;\n    proxy_temp_path proxy;\n    \
               fastcgi_temp_path fastcgi;\n    uwsgi_temp_path uwsgi;\n    scgi_temp_path scgi;\n";
    let file = folder.join("nginx.conf");
    std::fs::write(&file, configuration.replacen("http {\n", own, 1)).unwrap();
    let mut command = Command::new(program());
    command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(file);
    command.args(["-g", &format!("pid nginx.pid; error_log stderr; {directives}")]).stdout(Stdio::null());
    command
}

/// Where only administrators' paths lead.
fn program() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/nginx");
    if debian.exists() { debian } else { "nginx".into() }
}

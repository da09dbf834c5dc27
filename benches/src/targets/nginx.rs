//! nginx as a plain reverse proxy: one worker, connections to the backend kept
//! alive, nothing buffered or logged. It runs as a child with a configuration of
//! its own, never as a service.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use super::free;
use crate::{
    child::{self, Guard},
    load::{Case, Era, Target, What},
    place,
};

/// nginx, and the folder in which it runs.
pub struct Nginx {
    guard: Guard,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

/// Where nginx is.
pub fn find(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join("nginx")).find(|file| file.exists())
}

impl Nginx {
    /// It may not listen yet.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(program: &Path, to: SocketAddr) -> anyhow::Result<Self> {
        let (folder, address, arguments) = prepare(to)?;
        let guard = child::spawn(
            place::measured(program)?.args(arguments),
            Some(folder.path().join("nginx.log").as_path()),
        )?;
        Ok(Self { guard, address, _folder: folder })
    }

    /// # Errors
    /// If it does not start.
    pub async fn start(program: &Path, to: SocketAddr) -> anyhow::Result<Self> {
        let nginx = Self::launch(program, to)?;
        super::serves(&nginx.target(), &Case::new("a call", Era::Modern, What::Echo(8))).await?;
        Ok(nginx)
    }

    /// It under another program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_under(wrapper: &mut Command, program: &Path, to: SocketAddr) -> anyhow::Result<Self> {
        let (folder, address, arguments) = prepare(to)?;
        let guard = child::spawn(wrapper.arg(program).args(arguments), None)?;
        Ok(Self { guard, address, _folder: folder })
    }

    pub fn target(&self) -> Target {
        Target::new(super::NGINX, self.address, self.guard.pid())
    }

    /// # Errors
    /// If it does not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.guard.stop().await
    }
}

fn prepare(to: SocketAddr) -> anyhow::Result<(tempfile::TempDir, SocketAddr, [OsString; 6])> {
    let folder = tempfile::tempdir()?;
    let address = free()?;
    let config = folder.path().join("nginx.conf");
    std::fs::write(&config, configuration(folder.path(), address, to))?;
    let arguments =
        ["-p".into(), folder.path().into(), "-e".into(), "stderr".into(), "-c".into(), config.into()];
    Ok((folder, address, arguments))
}

/// The configuration of nginx: the worker is the only process, so that nothing is
/// left when it is killed. Pure.
fn configuration(folder: &Path, listen: SocketAddr, to: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "worker_processes 1;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 20000;
events {{
  worker_connections 19000;
  multi_accept on;
}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 16m;
  client_body_buffer_size 2m;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  upstream backend {{
    server {to};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 3600s;
    }}
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_nginx_writes_is_in_its_folder() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = configuration(Path::new("/x/y"), address(1), address(2));
        assert!(text.contains("listen 127.0.0.1:1 ") && text.contains("server 127.0.0.1:2;"));
        for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
            assert!(path.starts_with("/x/y/") || path == "/", "{path}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}

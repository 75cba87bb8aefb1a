//! `provost certs`: a development CA and a serving certificate as files. It must never overwrite a file that it was not
//! told to, nor print a key.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::edge::tls::ca::{self, Made};

/// Flags of `provost certs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: provost certs --dir certs --name provost.provost.svc\n\n\
    Your own certificate is used instead by tls.cert and tls.key in provost.yaml, or --tls-cert and --tls-key.")]
pub struct Args {
    /// Folder to write ca.crt, tls.crt and tls.key to
    #[arg(long, default_value = "certs", value_name = "DIR")]
    dir: PathBuf,
    /// Name that callers use, <service>.<namespace>.svc in a cluster; may be repeated. localhost and the loopback
    /// addresses are always added
    #[arg(long = "name", default_value = "provost.provost.svc", value_name = "NAME")]
    names: Vec<String>,
    /// Days from today for which both certificates are valid
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// Overwrite what is there. A running `provost serve` takes the new pair over
    #[arg(long)]
    force: bool,
}

impl Args {
    /// Runs it: exit 0 when all three files were written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let made = ca::make(&self.names, self.days)?;
        write_all(&self.dir, &made, self.force)?;
        print!("{}", told(&self.dir, &made));
        Ok(ExitCode::SUCCESS)
    }
}

/// The three files. Nothing is written where one of them exists and `force` is not given.
fn write_all(dir: &Path, made: &Made, force: bool) -> anyhow::Result<()> {
    let files =
        [("ca.crt", &made.ca_pem, 0o644), ("tls.crt", &made.cert_pem, 0o644), ("tls.key", &made.key_pem, 0o600)];
    if !force
        && let Some(there) = files.iter().map(|(name, ..)| dir.join(name)).find(|file| file.symlink_metadata().is_ok())
    {
        anyhow::bail!("{} exists: use --force to overwrite it, or --dir for another folder", there.display());
    }
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    for (name, content, mode) in files {
        write(dir, name, content, mode).with_context(|| format!("{} cannot be written", dir.join(name).display()))?;
    }
    Ok(())
}

/// Writes beside the file and renames, so that a server that reads meanwhile sees the old one or the new one, and a key
/// is never readable by others, not for a moment.
fn write(dir: &Path, name: &str, content: &str, mode: u32) -> std::io::Result<()> {
    let beside = dir.join(format!(".{name}.new"));
    if beside.symlink_metadata().is_ok() {
        fs::remove_file(&beside)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(name))
}

fn told(dir: &Path, made: &Made) -> String {
    let Made { ca_pem, names, not_after, cert_pem: _, key_pem: _ } = made;
    let file = |name: &str| dir.join(name).display().to_string();
    let (ca, cert, key) = (file("ca.crt"), file("tls.crt"), file("tls.key"));
    format!(
        "{ca}   the CA that callers trust; its key was thrown away, so nobody can sign more under it\n\
         {cert}  the serving certificate, until {until}, for {names}\n\
         {key}  its private key, for you alone (mode 0600): do not commit it\n\
         \n\
         For the webhook configuration:\n\
         caBundle: {bundle}\n\
         \n\
         Serve with it:    provost serve --tls-cert {cert} --tls-key {key}\n\
         Serve with yours: the same flags, or tls.cert and tls.key in provost.yaml. PEM: the leaf with the DNS name\n\
         <service>.<namespace>.svc first, then intermediates; the key in a file of its own; caBundle is the CA above\n\
         them. Changed files are taken over within seconds, a pair that does not fit is not.\n",
        until = not_after.strftime("%Y-%m-%d"),
        names = names.join(", "),
        bundle = STANDARD.encode(ca_pem),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn made() -> Made {
        ca::make(&["provost.provost.svc".to_owned()], 30).expect("these names can be had")
    }

    #[test]
    fn the_key_is_private_and_nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let dir = dir.path().join("certs");
        let first = made();
        write_all(&dir, &first, false).expect("an empty folder is written to");
        let mode = |name: &str| fs::metadata(dir.join(name)).expect("was written").permissions().mode() & 0o777;
        assert_eq!(mode("tls.key"), 0o600);
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect("was written");
        assert_eq!(read("ca.crt"), first.ca_pem);

        let second = made();
        let error = write_all(&dir, &second, false).expect_err("the files are there");
        assert!(error.to_string().ends_with("ca.crt exists: use --force to overwrite it, or --dir for another folder"));
        assert_eq!(read("tls.key"), first.key_pem);

        write_all(&dir, &second, true).expect("told to overwrite");
        assert_eq!((read("tls.key"), mode("tls.key")), (second.key_pem, 0o600));
        assert_eq!(fs::read_dir(&dir).expect("is there").count(), 3, "nothing is left beside the files");
    }

    #[test]
    fn what_is_told_holds_the_bundle_and_no_key() {
        let made = made();
        let told = told(Path::new("certs"), &made);
        assert!(told.contains(&format!("caBundle: {}\n", STANDARD.encode(&made.ca_pem))));
        assert!(told.contains("provost.provost.svc, localhost, 127.0.0.1, ::1"), "{told}");
        assert!(!told.contains("PRIVATE") && !told.contains(&STANDARD.encode(&made.key_pem)));
    }
}

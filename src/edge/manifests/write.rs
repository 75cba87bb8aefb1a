//! A manifest file written in place: whole or not at all. It must never overwrite what somebody else has written since.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

/// Replaces the text of a file that still holds `old`, keeping its mode and owner. A link stays a link: the file behind it
/// is replaced. An error where it holds something else by now, and whatever the system says.
pub fn replace(path: &Path, old: &str, new: &str) -> io::Result<()> {
    let path = path.canonicalize()?;
    let folder = path.parent().ok_or_else(|| io::Error::other("is in no folder"))?;
    let about = fs::metadata(&path)?;
    if !about.is_file() {
        return Err(io::Error::other("is no file that could be replaced"));
    }
    let mut file = tempfile::Builder::new().prefix(".provost-pin-").tempfile_in(folder)?;
    file.write_all(new.as_bytes())?;
    let made = file.as_file().metadata()?;
    if (made.uid(), made.gid()) != (about.uid(), about.gid()) {
        chown(file.path(), Some(about.uid()), Some(about.gid()))?;
    }
    file.as_file().set_permissions(about.permissions())?;
    file.as_file().sync_all()?;
    if fs::read(&path)? != old.as_bytes() {
        return Err(io::Error::other("was changed in the meantime: run it again"));
    }
    file.persist(&path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn mode_and_link_stay() {
        let folder = tempfile::tempdir().expect("folder");
        let (file, link) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        fs::write(&file, "old").expect("file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("mode");
        std::os::unix::fs::symlink("a.yaml", &link).expect("link");
        replace(&link, "old", "new").expect("replaced");
        assert_eq!(fs::read_to_string(&file).expect("file"), "new");
        assert_eq!(fs::metadata(&file).expect("file").permissions().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("link").is_symlink());
    }

    #[test]
    fn what_changed_since_is_left_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("a.yaml");
        fs::write(&file, "theirs").expect("file");
        let error = replace(&file, "old", "new").expect_err("it is another text");
        assert!(error.to_string().starts_with("was changed in the meantime"), "{error}");
        assert_eq!(fs::read_to_string(&file).expect("file"), "theirs");
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1, "nothing is left behind");
    }
}

//! The directory passes the suite.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use flames_blob::conformance::Subject;

async fn subject() -> Option<Subject> {
    let (folder, store) = common::fresh_store().await;
    let root = folder.path().to_owned();
    Some(Subject::new(store, move |key| common::damage(&root, key)).keeping(folder))
}

flames_blob::blob_conformance!(subject());
flames_blob::blob_name_conformance!(subject());

//! What the rules look at, and how it is read from this workspace.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, TargetKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A workspace as the rules see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct House {
    pub(crate) crates: Vec<Crate>,
    /// What each package needs to be built, in-house or not; what only tests need is left out. Of our own
    /// crates also what is optional.
    pub(crate) uses: BTreeMap<String, BTreeSet<String>>,
    pub(crate) files: Vec<SourceFile>,
}

/// A member of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crate {
    pub(crate) name: String,
    /// Its folder, from the workspace's root.
    pub(crate) folder: String,
    pub(crate) description: String,
    /// Those of [`SHARED_KEYS`] that it does not take from the workspace.
    pub(crate) own_keys: Vec<String>,
    pub(crate) roots: Vec<Root>,
}

/// Where a library or a program begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Root {
    pub(crate) path: String,
    pub(crate) forbids_unsafe: bool,
}

/// A Rust file.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) lines: usize,
}

/// What every crate takes from the workspace.
const SHARED_KEYS: [&str; 5] = ["version", "edition", "rust-version", "license", "lints"];

impl House {
    pub(crate) fn of_this_workspace() -> Self {
        let metadata = metadata();
        let root = metadata.workspace_root.as_std_path().to_owned();
        Self {
            crates: metadata
                .workspace_packages()
                .into_iter()
                .map(|package| read_crate(package, &root))
                .collect(),
            uses: uses(&metadata),
            files: ["crates", "adapters"]
                .iter()
                .flat_map(|folder| source_files(&root.join(folder), &root))
                .collect(),
        }
    }

    /// The in-house crates that a crate needs to be built.
    pub(crate) fn in_house(&self, one: &Crate) -> Vec<&Crate> {
        let uses = self.uses.get(&one.name);
        let is_used = |other: &&Crate| uses.is_some_and(|uses| uses.contains(&other.name));
        self.crates.iter().filter(is_used).collect()
    }

    /// Every crate with every in-house crate that it needs.
    pub(crate) fn in_house_edges(&self) -> impl Iterator<Item = (&Crate, &Crate)> {
        self.crates.iter().flat_map(|one| self.in_house(one).into_iter().map(move |used| (one, used)))
    }
}

impl Crate {
    pub(crate) fn is_adapter(&self) -> bool {
        self.folder.starts_with("adapters/")
    }
}

/// Of Linux alone: what other systems would need is nobody's here.
fn metadata() -> Metadata {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .other_options(["--filter-platform".to_owned(), platform])
        .exec()
        .expect("`cargo metadata` reads this workspace")
}

fn uses(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    for node in &resolve.nodes {
        let needed = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| is_built(kind.kind)));
        let needed = needed.map(|dep| metadata[&dep.pkg].name.to_string());
        uses.entry(metadata[&node.id].name.to_string()).or_default().extend(needed);
    }
    for package in metadata.workspace_packages() {
        let declared = package.dependencies.iter().filter(|dependency| is_built(dependency.kind));
        uses.entry(package.name.to_string())
            .or_default()
            .extend(declared.map(|dependency| dependency.name.clone()));
    }
    uses
}

fn is_built(kind: DependencyKind) -> bool {
    kind != DependencyKind::Development
}

fn read_crate(package: &Package, root: &Path) -> Crate {
    let manifest = package.manifest_path.as_std_path();
    let text = std::fs::read_to_string(manifest).expect("a manifest that cargo has read");
    Crate {
        name: package.name.to_string(),
        folder: relative(manifest.parent().expect("a folder"), root),
        description: package.description.clone().unwrap_or_default(),
        own_keys: own_keys(&text.parse().expect("a manifest that cargo has read")),
        roots: roots(package, root),
    }
}

/// The shared keys that a manifest does not take from the workspace.
pub(crate) fn own_keys(manifest: &Table) -> Vec<String> {
    let from_workspace = |value: Option<&Value>| {
        value.and_then(|value| value.get("workspace")).and_then(Value::as_bool).unwrap_or(false)
    };
    let value = |key: &str| match key {
        "lints" => manifest.get("lints"),
        _ => manifest.get("package").and_then(|package| package.get(key)),
    };
    SHARED_KEYS.into_iter().filter(|key| !from_workspace(value(key))).map(str::to_owned).collect()
}

fn roots(package: &Package, root: &Path) -> Vec<Root> {
    let is_ours = |kinds: &[TargetKind]| {
        kinds.iter().any(|kind| matches!(kind, TargetKind::Lib | TargetKind::Bin | TargetKind::ProcMacro))
    };
    let targets = package.targets.iter().filter(|target| is_ours(&target.kind));
    let read = |path: &Path| std::fs::read_to_string(path).expect("a target that cargo has found");
    let roots = targets.map(|target| Root {
        path: relative(target.src_path.as_std_path(), root),
        forbids_unsafe: forbids_unsafe(&read(target.src_path.as_std_path())),
    });
    roots.collect()
}

pub(crate) fn forbids_unsafe(source: &str) -> bool {
    source.lines().any(|line| line.trim_start().starts_with("#![forbid(unsafe_code"))
}

/// The Rust files below a folder, at whatever depth; what cargo or a test leaves there is not ours.
fn source_files(folder: &Path, root: &Path) -> Vec<SourceFile> {
    let entries = std::fs::read_dir(folder).expect("a folder of the workspace");
    let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let read = |path: &Path| match path {
        path if path.is_dir() && !path.ends_with("target") => source_files(path, root),
        path if path.extension().is_some_and(|extension| extension == "rs") => {
            let text = std::fs::read_to_string(path).expect("a source file");
            vec![SourceFile { path: relative(path, root), lines: text.lines().count() }]
        }
        _ => vec![],
    };
    paths.iter().flat_map(|path| read(path)).collect()
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

//! Templates: built, listed, replaced, removed.

use crate::fake_agent::Agent;
use crate::harness::Home;
use flames_node::{
    BuildProgress, BuildTemplate, ErrorKind, FailurePoint, Node, StartUp, TemplateName, TemplateOrigin,
    TemplateSource,
};
use flames_vmm::fake::FakeWorld;
use std::path::Path;
use tokio::sync::mpsc;

fn home() -> Home {
    Home::fake(&FakeWorld::new(), Agent::Willing, FailurePoint::none())
}

fn name(text: &str) -> TemplateName {
    TemplateName::parse(text).unwrap()
}

fn tree(root: &Path) -> std::path::PathBuf {
    let tree = root.join("tree");
    std::fs::create_dir_all(tree.join("bin")).unwrap();
    std::fs::write(tree.join("bin/sh"), "not really").unwrap();
    tree
}

async fn build(
    home: &Home,
    template: &str,
    from: TemplateSource,
) -> flames_node::Result<flames_node::Template> {
    let (progress, _news) = mpsc::channel(64);
    home.node.build_template(BuildTemplate { name: name(template), from, start_up: None }, progress).await
}

#[tokio::test]
async fn the_same_tree_gives_the_same_image_and_both_names_are_listed() {
    let home = home();
    let tree = tree(home.root.path());
    let one = build(&home, "one", TemplateSource::Directory(tree.clone())).await.unwrap();
    let two = build(&home, "two", TemplateSource::Directory(tree)).await.unwrap();
    assert_eq!((one.sha256.len(), one.sha256), (64, two.sha256.clone()));
    let names: Vec<_> =
        home.node.templates().await.unwrap().into_iter().map(|template| template.name).collect();
    assert_eq!(names, [name("mini"), name("one"), name("two")]);
    assert_eq!(two.origin, TemplateOrigin::User);
    assert_eq!(std::fs::metadata(two.image).unwrap().len(), two.size_bytes);
    home.close().await;
}

#[tokio::test]
async fn an_archive_becomes_the_same_template_as_its_tree() {
    let home = home();
    let tree = tree(home.root.path());
    let archive = home.root.path().join("tree.tar.gz");
    let packed =
        std::process::Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&tree).arg(".").status();
    assert!(packed.unwrap().success());
    let (progress, mut news) = mpsc::channel(64);
    let request = BuildTemplate { name: name("tar"), from: TemplateSource::Tar(archive), start_up: None };
    let template = home.node.build_template(request, progress).await.unwrap();
    assert_eq!(news.recv().await, Some(BuildProgress::Unpacking));
    assert!(template.size_bytes > 0);
    home.close().await;
}

#[tokio::test]
async fn a_removed_template_takes_its_image_along_unless_another_name_has_it() {
    let home = home();
    let tree = tree(home.root.path());
    let one = build(&home, "one", TemplateSource::Directory(tree.clone())).await.unwrap();
    build(&home, "two", TemplateSource::Directory(tree)).await.unwrap();
    home.node.remove_template(&name("one")).await.unwrap();
    assert!(one.image.exists());
    home.node.remove_template(&name("two")).await.unwrap();
    assert!(!one.image.exists());
    assert_eq!(home.node.remove_template(&name("two")).await.unwrap_err().kind(), ErrorKind::NotFound);
    home.close().await;
}

#[tokio::test]
async fn a_tag_keeps_its_build_when_the_template_is_built_anew() {
    let home = home();
    let tree = tree(home.root.path());
    let (from, (progress, _news)) = (TemplateSource::Directory(tree.clone()), mpsc::channel(64));
    let start_up = Some(StartUp { command: "serve".into(), ready: None });
    let request = BuildTemplate { name: name("app"), from, start_up };
    let first = home.node.build_template(request, progress).await.unwrap();
    let tagged = home.node.tag_template(&name("app"), name("app:stable")).await.unwrap();
    assert_eq!((&tagged.sha256, &tagged.image), (&first.sha256, &first.image));
    assert_eq!((&tagged.start_up, tagged.start_up.is_some()), (&first.start_up, true));
    std::fs::write(tree.join("new"), "other content").unwrap();
    let second = build(&home, "app", TemplateSource::Directory(tree)).await.unwrap();
    assert_ne!(second.sha256, first.sha256);
    assert!(first.image.exists(), "the tag has it");
    home.node.tag_template(&name("app"), name("app:stable")).await.unwrap();
    assert!(!first.image.exists(), "no name has it any more");
    home.node.remove_template(&name("app")).await.unwrap();
    let names: Vec<_> = home.node.templates().await.unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(names, [name("app:stable"), name("mini")]);
    assert!(second.image.exists());
    home.close().await;
}

#[tokio::test]
async fn what_came_with_flames_and_what_is_unknown_cannot_be_tagged() {
    let home = home();
    for (target, tag, kind) in [
        ("mini", "mini:v1", ErrorKind::Conflict),
        ("nothing", "nothing:v1", ErrorKind::NotFound),
        ("nothing", "mini", ErrorKind::Conflict),
    ] {
        let error = home.node.tag_template(&name(target), name(tag)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{target}: {error}");
    }
    home.close().await;
}

#[tokio::test]
async fn a_built_in_template_can_be_neither_replaced_nor_removed() {
    let home = home();
    let tree = tree(home.root.path());
    let error = build(&home, "mini", TemplateSource::Directory(tree)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(home.node.remove_template(&name("mini")).await.unwrap_err().kind(), ErrorKind::Conflict);
    home.close().await;
}

#[tokio::test]
async fn a_build_that_fails_leaves_no_file() {
    let home = home();
    let garbage = home.root.path().join("garbage.tar");
    std::fs::write(&garbage, "this is no archive").unwrap();
    let error = build(&home, "bad", TemplateSource::Tar(garbage)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = build(&home, "bad", TemplateSource::Directory("/nonexistent".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let images = home.config.data_dir.join("templates/images");
    assert_eq!(std::fs::read_dir(images).unwrap().count(), 0);
    assert_eq!(home.node.templates().await.unwrap().len(), 1);
    home.close().await;
}

"""Names of builds. `app` is built before the first case and built anew, with another /etc/mark, before the second."""

from e2b import Sandbox, Template
from e2b.exceptions import SandboxException, TemplateException

from cases import case, main, raises


def mark(template):
    sandbox = Sandbox.create(template, timeout=120)
    try:
        return sandbox.files.read("/etc/mark")
    finally:
        sandbox.kill()


def builds():
    return {tag.tag: tag.build_id for tag in Template.get_tags("app")}


@case
def tags_are_given_listed_and_taken_away():
    assert Template.exists("app") and not Template.exists("nothing") and not Template.exists("app:v1")
    given = Template.assign_tags("app", ["v1", "stable"])
    assert given.tags == ["v1", "stable"]
    assert builds() == dict.fromkeys(["default", "v1", "stable"], given.build_id)
    assert Template.exists("app:v1")
    Template.remove_tags("app", "stable")
    assert set(builds()) == {"default", "v1"}
    raises(SandboxException, lambda: Sandbox.create("app:stable"), "app:stable")
    raises(TemplateException, lambda: Template.assign_tags("nothing", "v1"), "nothing")
    raises(TemplateException, lambda: Template.assign_tags("app", "not a tag"), "a-z")
    raises(TemplateException, lambda: Template.assign_tags("base", "v1"), "came with Flames")
    raises(TemplateException, lambda: Template.remove_tags("app", ["v1", "stable"]), "stable")
    raises(TemplateException, lambda: Template.remove_tags("app", "default"), "template itself")
    assert set(builds()) == {"default", "v1"}


@case
def a_tag_keeps_its_build_and_can_be_moved():
    assert (mark("app:v1"), mark("app"), mark("app:default")) == ("from the tree", "built anew", "built anew")
    assert builds()["v1"] != builds()["default"]
    Template.assign_tags("app:v1", "default")
    assert builds()["v1"] == builds()["default"]
    assert mark("app") == "from the tree"


if __name__ == "__main__":
    main()

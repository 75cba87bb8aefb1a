//! Referrers: lists, pages, and the registries that have none.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::scripted::{Server, budget, digest, index, oci_error, ok, redirect, status, with};
use super::super::{ManifestRef, Referrers};
use super::{app, image, pull, registry, told};
use crate::decision::code::Code;
use crate::decision::reference::{Digest, PinnedImage};

/// Digests of the entries, completeness and cut of a list.
fn listed(referrers: Referrers) -> (Vec<Digest>, bool, Option<String>) {
    let Referrers::Listed { entries, complete, cut_by } = referrers else { panic!("no list") };
    (entries.into_iter().map(|entry| entry.digest).collect(), complete, cut_by)
}

#[tokio::test]
async fn a_list_is_judged_by_its_body() {
    for content_type in ["application/vnd.oci.image.index.v1+json", "application/json", "text/html"] {
        let body = index([(digest("a"), 1), (digest("b"), 2), (digest("a"), 1)]);
        let server = Server::start(move |_| Some(with(ok(body.clone()), "content-type", content_type))).await;
        let registry = registry(&[&server]);
        let image = image(&server, digest("image"));
        let referrers = registry.referrers(&image, &budget()).await.expect("a list");
        assert_eq!(listed(referrers), (vec![digest("a"), digest("b")], true, None), "{content_type}");
        assert_eq!(server.asked(), [format!("GET /v2/team/app/referrers/{}", digest("image"))]);
        assert_eq!(registry.has_referrers_api(image.repository().host()).await, Some(true));
    }
}

#[tokio::test]
async fn x_041_a_list_that_the_server_filtered_is_not_complete() {
    let server =
        Server::start(|_| Some(with(ok(index([(digest("a"), 1)])), "oci-filters-applied", "artifactType"))).await;
    let referrers = registry(&[&server]).referrers(&image(&server, digest("i")), &budget()).await.expect("a list");
    assert_eq!(listed(referrers), (vec![digest("a")], false, None));
}

#[tokio::test]
async fn x_040_only_404_and_405_mean_no_api() {
    for (answer, want) in [
        (404, None),
        (405, None),
        (500, Some(Code::EvidenceUnavailable)),
        (503, Some(Code::EvidenceUnavailable)),
        (400, Some(Code::EvidenceUnavailable)),
        (401, Some(Code::RegistryAuthFailed)),
        (403, Some(Code::RegistryAuthFailed)),
        (429, Some(Code::RateLimited)),
    ] {
        let server = Server::start(move |_| Some(status(answer))).await;
        let result = registry(&[&server]).referrers(&image(&server, digest("i")), &budget()).await;
        match want {
            None => assert_eq!(result, Ok(Referrers::NoApi), "{answer}"),
            Some(code) => assert_eq!(told(result).0, code, "{answer}"),
        }
    }
}

#[tokio::test]
async fn no_api_is_remembered_only_for_a_repository_that_is_there() {
    const BODY: &str = "{}";
    let script = |error: Option<&'static str>| {
        move |seen: &super::super::scripted::Seen| {
            Some(match (seen.path().contains("/referrers/"), error) {
                (false, _) => ok(BODY),
                (true, None) => status(404),
                (true, Some(code)) => oci_error(404, code),
            })
        }
    };
    // Both orders: first the API, then the proof that the repository is there, and the other way round.
    for first in [true, false] {
        let server = Server::start(script(None)).await;
        let registry = registry(&[&server]);
        let image = image(&server, digest("i"));
        let host = image.repository().host();
        if first {
            assert_eq!(registry.referrers(&image, &budget()).await, Ok(Referrers::NoApi));
            assert_eq!(registry.has_referrers_api(host).await, None, "the repository may not be there");
        }
        assert!(pull(&registry, &server, digest(BODY)).await.is_ok());
        if !first {
            assert_eq!(registry.has_referrers_api(host).await, None);
            assert_eq!(registry.referrers(&image, &budget()).await, Ok(Referrers::NoApi));
        }
        assert_eq!(registry.has_referrers_api(host).await, Some(false));
        let asked = server.seen().len();
        assert_eq!(registry.referrers(&image, &budget()).await, Ok(Referrers::NoApi));
        assert_eq!(server.seen().len(), asked, "not asked again");
    }
    // A registry that has the API and lacks the repository, or the image, says so.
    for code in ["NAME_UNKNOWN", "MANIFEST_UNKNOWN"] {
        let server = Server::start(script(Some(code))).await;
        let registry = registry(&[&server]);
        let image = image(&server, digest("i"));
        assert!(pull(&registry, &server, digest(BODY)).await.is_ok());
        assert_eq!(registry.referrers(&image, &budget()).await, Ok(Referrers::NoApi));
        assert_eq!(registry.has_referrers_api(image.repository().host()).await, None, "{code}");
    }
}

#[tokio::test]
async fn a_404_never_unlearns_a_list_that_was_seen() {
    let server = Server::start(|seen| {
        Some(match seen.path() {
            path if path.ends_with(&digest("with").to_string()) => ok(index([])),
            path if path.contains("/referrers/") => status(404),
            _ => ok("{}"),
        })
    })
    .await;
    let registry = registry(&[&server]);
    assert!(pull(&registry, &server, digest("{}")).await.is_ok());
    let with = image(&server, digest("with"));
    assert!(matches!(registry.referrers(&with, &budget()).await, Ok(Referrers::Listed { complete: true, .. })));
    assert_eq!(registry.referrers(&image(&server, digest("without")), &budget()).await, Ok(Referrers::NoApi));
    assert_eq!(registry.has_referrers_api(with.repository().host()).await, Some(true));
}

#[tokio::test]
async fn pages_are_followed_on_one_host() {
    let server = Server::start(|seen| {
        let here = seen.path().to_owned();
        Some(match seen.target.split_once('?').map(|(_, query)| query) {
            None => with(ok(index([(digest("a"), 1)])), "link", &format!("<{here}?last=a>; rel=\"next\"")),
            Some("last=a") => {
                let link = format!("<http://{}{here}?last=b>; title=\"x; y, z\"; rel=next", seen.header("host"));
                with(ok(index([(digest("b"), 1), (digest("a"), 1)])), "link", &link)
            }
            Some(_) => with(ok(index([(digest("c"), 1)])), "link", "</elsewhere>; rel=\"prev\""),
        })
    })
    .await;
    let referrers = registry(&[&server]).referrers(&image(&server, digest("i")), &budget()).await.expect("a list");
    assert_eq!(listed(referrers), (vec![digest("a"), digest("b"), digest("c")], true, None));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn x_097_a_next_link_to_a_page_that_was_read_ends_the_list() {
    for back in ["", "?page=1"] {
        let server = Server::start(move |seen| {
            let to = if seen.target.contains('?') { back } else { "?page=1" };
            let link = format!("<{}{to}>; rel=\"next\"", seen.path());
            Some(with(ok(index([(digest(&seen.target), 1)])), "link", &link))
        })
        .await;
        let referrers = registry(&[&server]).referrers(&image(&server, digest("i")), &budget()).await.expect("a list");
        let (entries, complete, cut_by) = listed(referrers);
        assert_eq!((entries.len(), complete), (2, false));
        assert_eq!(cut_by.as_deref(), Some("a next page that was read before"));
        assert_eq!(server.seen().len(), 2);
    }
}

#[tokio::test]
async fn x_097_a_list_is_cut_at_ten_pages_and_a_thousand_entries() {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    let server = Server::start(|seen| {
        let page = PAGE.fetch_add(1, Ordering::Relaxed);
        let link = format!("<{}?page={page}>; rel=\"next\"", seen.path());
        Some(with(ok(index([(digest(page.to_string()), 1)])), "link", &link))
    })
    .await;
    let referrers = registry(&[&server]).referrers(&image(&server, digest("i")), &budget()).await.expect("a list");
    let (entries, complete, cut_by) = listed(referrers);
    assert_eq!((entries.len(), complete, server.seen().len()), (10, false, 10));
    assert_eq!(cut_by.as_deref(), Some("a list of more than 10 pages"));

    for (count, complete) in [(1000, true), (1001, false), (6000, false)] {
        let body = index((0..count).map(|n: usize| (digest(n.to_string()), 1)));
        let server = Server::start(move |_| Some(ok(body.clone()))).await;
        let referrers = registry(&[&server]).referrers(&image(&server, digest("i")), &budget()).await.expect("a list");
        let (entries, whole, cut_by) = listed(referrers);
        assert_eq!((entries.len(), whole, cut_by.is_none()), (1000, complete, complete), "{count}");
    }
}

#[tokio::test]
async fn a_next_page_on_another_host_is_not_followed() {
    let other = Server::start_on("127.0.0.2", None, |_| Some(ok(index([(digest("b"), 1)])))).await;
    for link in
        [format!("http://{}/next", other.host()), format!("//{}/next", other.host()), "http://[::1]/".to_owned()]
    {
        let link = format!("<{link}>; rel=\"next\"");
        let server = Server::start(move |_| Some(with(ok(index([(digest("a"), 1)])), "link", &link))).await;
        let referrers =
            registry(&[&server, &other]).referrers(&image(&server, digest("i")), &budget()).await.expect("a list");
        let cut_by = Some("a next page on another host, which is not followed".to_owned());
        assert_eq!(listed(referrers), (vec![digest("a")], false, cut_by));
    }
    // Nor by a redirect of a later page: the list began, and its rest is unanswered.
    let target = format!("http://{}/next", other.host());
    let server = Server::start(move |seen| {
        Some(if seen.target.contains('?') {
            redirect(307, &target)
        } else {
            with(ok(index([(digest("a"), 1)])), "link", &format!("<{}?p>; rel=next", seen.path()))
        })
    })
    .await;
    let (code, text) = told(registry(&[&server, &other]).referrers(&image(&server, digest("i")), &budget()).await);
    assert_eq!(code, Code::EvidenceUnavailable, "{text}");
    assert_eq!(other.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_later_page_that_fails_leaves_the_whole_list_unanswered() {
    for (answer, want) in
        [(404, Code::EvidenceUnavailable), (503, Code::EvidenceUnavailable), (403, Code::RegistryAuthFailed)]
    {
        let server = Server::start(move |seen| {
            Some(if seen.target.contains('?') {
                status(answer)
            } else {
                with(ok(index([(digest("a"), 1)])), "link", &format!("<{}?p>; rel=next", seen.path()))
            })
        })
        .await;
        let (code, text) = told(registry(&[&server]).referrers(&image(&server, digest("i")), &budget()).await);
        assert_eq!(code, want, "{text}");
    }
}

#[tokio::test]
async fn x_048_digests_of_a_list_are_checked_before_anything_is_made_of_them() {
    for bad in ["sha256:../../../x", "sha256:abc", "../etc/passwd", "sha512:abc", ""] {
        let body = index([(digest("a"), 1)]).replace(&digest("a").to_string(), bad);
        let server = Server::start(move |_| Some(ok(body.clone()))).await;
        let (code, text) = told(registry(&[&server]).referrers(&image(&server, digest("i")), &budget()).await);
        assert_eq!(code, Code::EvidenceUnavailable, "{bad}: {text}");
        assert_eq!(server.seen().len(), 1, "{bad}: asked again, or for what it names");
    }
}

#[tokio::test]
async fn x_043_what_is_no_list_is_no_answer() {
    for body in
        ["<html>log in</html>".to_owned(), "[]".to_owned(), index([(digest("a"), 1)])[..60].to_owned(), String::new()]
    {
        let shown = body.clone();
        let server = Server::start(move |_| Some(ok(body.clone()))).await;
        let (code, text) = told(registry(&[&server]).referrers(&image(&server, digest("i")), &budget()).await);
        assert_eq!(code, Code::EvidenceUnavailable, "{shown}: {text}");
        assert!(text.starts_with("the referrers of 127.0.0.1:"), "{text}");
    }
}

#[tokio::test]
async fn a_repository_of_another_host_shares_nothing() {
    let without = Server::start(|_| Some(status(405))).await;
    let with = Server::start(|_| Some(ok(index([])))).await;
    let registry = registry(&[&without, &with]);
    let tag = ManifestRef::Tag("t".parse().expect("tag"));
    let _ = registry.manifest(&app(&without), &tag, &budget()).await;
    assert_eq!(registry.referrers(&image(&without, digest("i")), &budget()).await, Ok(Referrers::NoApi));
    let image = PinnedImage::new(app(&with), digest("i"));
    assert!(matches!(registry.referrers(&image, &budget()).await, Ok(Referrers::Listed { .. })));
}

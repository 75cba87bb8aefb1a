//! Manifests and blobs: what comes, and each way in which it does not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use tokio::time::Instant;

use super::super::scripted::{Server, budget, digest, oci_error, ok, settings, status, with};
use super::super::{Budget, DOCKER_LIST, Failure, MAX_MANIFEST, ManifestRef, Names, OCI_INDEX};
use super::{app, client, pull, registry, told};
use crate::decision::code::Code;
use crate::decision::reference::Repository;

const BODY: &str = r#"{"schemaVersion":2}"#;

#[tokio::test]
async fn a_manifest_comes_by_digest_and_by_tag() {
    let server = Server::start(|seen| {
        Some(match seen.path() {
            "/v2/team/app/manifests/v1" => with(ok(BODY), "content-type", "Application/JSON; charset=utf-8"),
            path if path == format!("/v2/team/app/manifests/{}", digest(BODY)) => ok(BODY),
            _ => status(404),
        })
    })
    .await;
    let registry = registry(&[&server]);
    let by_digest = pull(&registry, &server, digest(BODY)).await.expect("by digest");
    assert_eq!((by_digest.bytes.as_ref(), by_digest.digest), (BODY.as_bytes(), digest(BODY)));
    let tag = ManifestRef::Tag("v1".parse().expect("tag"));
    let by_tag = registry.manifest(&app(&server), &tag, &budget()).await.expect("by tag");
    assert_eq!((by_tag.digest, by_tag.content_type.as_str()), (digest(BODY), "application/json"));

    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        for wanted in ["oci.image.manifest.v1", OCI_INDEX, "docker.distribution.manifest.v2", DOCKER_LIST] {
            assert!(request.header("accept").contains(wanted), "x_140: {}", request.header("accept"));
        }
        assert_eq!(request.header("accept-encoding"), "identity");
        assert_eq!(request.header("authorization"), "");
        assert!(request.header("user-agent").starts_with("provost/"));
    }
}

#[tokio::test]
async fn x_035_a_body_that_is_not_its_digest_is_refused_whatever_the_header_says() {
    let wanted = digest(BODY);
    let server =
        Server::start(move |_| Some(with(ok(format!("{BODY} ")), "docker-content-digest", &wanted.to_string()))).await;
    let registry = registry(&[&server]);
    let (code, text) = told(pull(&registry, &server, wanted).await);
    assert_eq!(code, Code::DigestMismatch);
    assert_eq!(text, format!("the manifest {wanted} of {} hashes to {}", app(&server), digest(format!("{BODY} "))));
    let size = BODY.len() as u64 + 1;
    let (code, _) = told(registry.blob(&app(&server), wanted, size, 100, &budget()).await);
    assert_eq!(code, Code::DigestMismatch);
    let (code, text) = told(registry.blob(&app(&server), digest(format!("{BODY} ")), size - 1, 100, &budget()).await);
    assert_eq!(code, Code::DigestMismatch, "{text}");
    assert!(text.contains("sends 20 bytes for the blob") && text.ends_with("whose descriptor says 19"), "{text}");
    assert!(registry.blob(&app(&server), digest(format!("{BODY} ")), size, 100, &budget()).await.is_ok());
}

#[tokio::test]
async fn a_blob_that_streams_more_or_less_than_its_size_is_refused() {
    let server = Server::start(|_| Some(ok(Body::from_stream(chunks(4, 10))))).await;
    let registry = registry(&[&server]);
    let all = [b'x'; 40];
    assert!(registry.blob(&app(&server), digest(all), 40, 40, &budget()).await.is_ok());
    for size in [39, 41] {
        let (code, text) = told(registry.blob(&app(&server), digest(all), size, 100, &budget()).await);
        assert_eq!(code, Code::DigestMismatch, "{text}");
    }
}

#[tokio::test]
async fn x_040_only_a_404_is_not_found() {
    for (answer, want) in [
        (404, Code::ImageNotFound),
        (400, Code::EvidenceUnavailable),
        (405, Code::EvidenceUnavailable),
        (204, Code::EvidenceUnavailable),
        (206, Code::EvidenceUnavailable),
        (304, Code::EvidenceUnavailable),
        (410, Code::EvidenceUnavailable),
        (500, Code::EvidenceUnavailable),
        (503, Code::EvidenceUnavailable),
        (403, Code::RegistryAuthFailed),
        (401, Code::RegistryAuthFailed),
        (429, Code::RateLimited),
    ] {
        let server = Server::start(move |_| Some(status(answer))).await;
        let (code, text) = told(pull(&registry(&[&server]), &server, digest("x")).await);
        assert_eq!(code, want, "{answer}: {text}");
    }
    let server = Server::start(|_| Some(oci_error(404, "MANIFEST_UNKNOWN"))).await;
    let (_, text) = told(pull(&registry(&[&server]), &server, digest("x")).await);
    assert_eq!(text, format!("the manifest {} of {}: not found", digest("x"), app(&server)));
}

#[tokio::test]
async fn what_a_registry_says_is_shown_escaped_and_short() {
    let server = Server::start(|_| {
        let error = serde_json::json!({"errors": [{"code": "DENIED", "message": format!("\u{1b}[31mno\n{}", "x".repeat(999))}]});
        let mut response = ok(error.to_string());
        *response.status_mut() = axum::http::StatusCode::FORBIDDEN;
        Some(response)
    })
    .await;
    let (code, text) = told(pull(&registry(&[&server]), &server, digest("x")).await);
    assert_eq!(code, Code::RegistryAuthFailed);
    assert!(text.contains("answers 403") && text.contains(r"(DENIED: \u{1b}[31mno\u{a}xx"), "{text}");
    assert!(text.len() < 600 && text.chars().all(|c| !c.is_control()), "{text}");
}

#[tokio::test]
async fn x_042_a_429_is_tried_three_times_and_then_said_with_its_time() {
    let server = Server::start(|_| Some(with(status(429), "retry-after", "0"))).await;
    let registry = registry(&[&server]);
    let failure = pull(&registry, &server, digest("x")).await.expect_err("limited");
    assert_eq!(failure, Failure::RateLimited { host: server.host(), retry_after: Some(Duration::ZERO) });
    assert_eq!(server.seen().len(), 3);
    assert_eq!(failure.to_string(), format!("{} answers 429: try again in 0 s", server.host()));
}

#[tokio::test]
async fn x_042_a_retry_after_beyond_the_deadline_fails_at_once() {
    let server = Server::start(|_| Some(with(status(429), "retry-after", "40"))).await;
    let registry = registry(&[&server]);
    let failure = pull(&registry, &server, digest(BODY)).await.expect_err("too long");
    assert_eq!(failure, Failure::RateLimited { host: server.host(), retry_after: Some(Duration::from_secs(40)) });
    // The breaker holds for as long, for the whole host, and says so in the same kind.
    let other: Repository = format!("{}/team/other", server.host()).parse().expect("repository");
    let held = registry.manifest(&other, &ManifestRef::Digest(digest(BODY)), &budget()).await.expect_err("held back");
    let Failure::RateLimited { retry_after: Some(left), .. } = held else { panic!("{held}") };
    assert!((30..=40).contains(&left.as_secs()), "{left:?}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn x_042_a_retry_after_is_waited_for_if_the_deadline_allows() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let server = Server::start(|_| {
        let first = ASKED.fetch_add(1, Ordering::Relaxed) == 0;
        Some(if first { with(status(429), "retry-after", "1") } else { ok(BODY) })
    })
    .await;
    let begun = Instant::now();
    assert!(pull(&registry(&[&server]), &server, digest(BODY)).await.is_ok());
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(ASKED.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn x_042_while_a_retry_after_is_waited_for_it_can_be_told() {
    let polite = Server::start(|_| Some(with(status(429), "retry-after", "9"))).await;
    let curt = Server::start(|_| Some(status(429))).await;
    let (registry, by) = (registry(&[&polite, &curt]), ManifestRef::Digest(digest(BODY)));
    let spent = budget();
    assert_eq!(spent.sitting_out(), []);
    let told = async {
        loop {
            match spent.sitting_out().pop() {
                Some(told) => break told,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    let (polites, curts) = (app(&polite), app(&curt));
    let told = tokio::select! {
        called = registry.manifest(&polites, &by, &spent) => panic!("it did not wait: {called:?}"),
        told = told => told,
    };
    let Failure::RateLimited { host, retry_after: Some(left) } = told else { panic!("{told}") };
    assert_eq!(host, polite.host());
    assert!((1..=9).contains(&left.as_secs()), "{left:?}");
    assert_eq!(spent.sitting_out(), [], "nobody waits any more");
    // Its twin names no time. Our own pauses are nobody's reason.
    let told = async {
        while spent.sitting_out().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        biased;
        () = told => panic!("told {:?}", spent.sitting_out()),
        called = registry.manifest(&curts, &by, &spent) => assert!(called.is_err()),
    }
}

#[tokio::test]
async fn x_043_a_passing_fault_is_retried_and_a_lasting_one_is_unavailable() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let passing =
        Server::start(|_| Some(if ASKED.fetch_add(1, Ordering::Relaxed) < 2 { status(503) } else { ok(BODY) })).await;
    assert!(pull(&registry(&[&passing]), &passing, digest(BODY)).await.is_ok());
    let lasting = Server::start(|_| Some(status(503))).await;
    let registry = registry(&[&lasting]);
    let (code, text) = told(pull(&registry, &lasting, digest(BODY)).await);
    assert_eq!((code, lasting.seen().len()), (Code::EvidenceUnavailable, 3), "{text}");
    assert!(text.contains("answers 503 to the request for the manifest sha256:"), "{text}");
    // The repository is now left alone, its neighbour is not.
    let (code, text) = told(pull(&registry, &lasting, digest(BODY)).await);
    assert_eq!((code, lasting.seen().len()), (Code::EvidenceUnavailable, 3), "{text}");
    assert!(text.starts_with("not asked for another 5 s, since the last answer was: "), "{text}");
    let other: Repository = format!("{}/team/other", lasting.host()).parse().expect("repository");
    let _ = registry.manifest(&other, &ManifestRef::Digest(digest(BODY)), &budget()).await;
    assert_eq!(lasting.seen().len(), 6);
}

#[tokio::test]
async fn x_043_a_reply_cut_short_is_unavailable() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"schema",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "nonsense\r\n\r\n",
    ] {
        let server = Server::raw(answer).await;
        let (code, text) = told(pull(&registry(&[&server]), &server, digest("hello")).await);
        assert_eq!(code, Code::EvidenceUnavailable, "{answer:?}: {text}");
    }
    let whole = Server::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(pull(&registry(&[&whole]), &whole, digest("hello")).await.is_ok());
    // A length that is too short cuts the body: what is left is not the digest.
    let short = Server::raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello").await;
    let (code, _) = told(pull(&registry(&[&short]), &short, digest("hello")).await);
    assert_eq!(code, Code::DigestMismatch);
}

#[tokio::test]
async fn x_043_no_connection_is_unavailable_and_the_host_is_left_alone() {
    let gone = Server::start(|_| Some(ok(BODY))).await;
    let (host, repository) = (gone.host(), app(&gone));
    drop(gone);
    let registry = client(&settings([host.as_str()]));
    let by = ManifestRef::Digest(digest(BODY));
    // The port may still be closing: a refused connection is what is waited for, not slept for.
    let failure = loop {
        match registry.manifest(&repository, &by, &budget()).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(failure) => break failure,
        }
    };
    assert!(matches!(failure, Failure::Unavailable { transient: true, .. }), "{failure}");
    let other: Repository = format!("{host}/team/other").parse().expect("repository");
    let (_, text) = told(registry.manifest(&other, &by, &budget()).await);
    assert!(text.starts_with("not asked for another"), "{text}");
}

#[tokio::test]
async fn x_043_a_name_without_an_address_is_unavailable() {
    let mut nowhere = settings([]);
    nowhere.names = Some(Names::new(|_| Some(Vec::new())));
    let repository: Repository = "r.example/team/app".parse().expect("repository");
    let by = ManifestRef::Digest(digest(BODY));
    let failure = client(&nowhere).manifest(&repository, &by, &budget()).await.expect_err("no address");
    assert!(matches!(failure, Failure::Unavailable { transient: true, .. }), "{failure}");
    assert_eq!(failure.to_string(), "the name of r.example does not resolve: the name has no address");
}

#[tokio::test]
async fn x_044_silence_is_unavailable_and_the_deadline_is_kept() {
    let silent = Server::start(|_| None).await;
    let mut quick = settings([silent.host().as_str()]);
    quick.connect_timeout = Duration::from_millis(450);
    quick.idle_timeout = Duration::from_millis(50);
    let (code, text) = told(pull(&client(&quick), &silent, digest("x")).await);
    assert_eq!(code, Code::EvidenceUnavailable);
    assert!(text.ends_with("has sent nothing for 0.5 s"), "{text}");
    // The body stalls after its first part.
    let stalling = Server::start(|_| {
        let first = futures::stream::iter([Ok::<_, std::io::Error>("start")]);
        Some(ok(Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))))
    })
    .await;
    let mut quick = settings([stalling.host().as_str()]);
    quick.idle_timeout = Duration::from_millis(50);
    let (code, text) = told(pull(&client(&quick), &stalling, digest("x")).await);
    assert_eq!(code, Code::EvidenceUnavailable, "{text}");
    for server in [&silent, &stalling] {
        let registry = registry(&[server]);
        let begun = Instant::now();
        let soon = Budget::new(begun + Duration::from_millis(100), 1 << 20, 10);
        let (code, text) = told(registry.manifest(&app(server), &ManifestRef::Digest(digest("x")), &soon).await);
        assert_eq!(code, Code::DeadlineExceeded, "{text}");
        assert_eq!(text, format!("the deadline passed while waiting for {}", server.host()));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn x_098_a_declared_size_over_the_limit_is_refused_before_it_is_read() {
    let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", MAX_MANIFEST + 1);
    let server = Server::raw(huge).await;
    let spent = budget();
    let by = ManifestRef::Digest(digest("x"));
    let (code, text) = told(registry(&[&server]).manifest(&app(&server), &by, &spent).await);
    assert_eq!(code, Code::BudgetExceeded, "{text}");
    assert!(text.contains("sends more than 4194304 bytes for the manifest"), "{text}");
    assert_eq!(spent.bytes_left(), 32 << 20);
    // A blob whose descriptor is over the limit is not even asked for.
    let server = Server::start(|_| Some(ok("x"))).await;
    let (code, _) = told(registry(&[&server]).blob(&app(&server), digest("x"), 101, 100, &budget()).await);
    assert_eq!((code, server.seen().len()), (Code::BudgetExceeded, 0));
}

#[tokio::test]
async fn x_098_a_body_without_a_length_is_cut_off_at_the_limit() {
    let server = Server::start(|seen| {
        let megabytes = if seen.path().ends_with("just") { 4 } else { 5 };
        Some(ok(Body::from_stream(chunks(megabytes, 1 << 20))))
    })
    .await;
    let registry = registry(&[&server]);
    let tag = |tag: &str| ManifestRef::Tag(tag.parse().expect("tag"));
    let just = registry.manifest(&app(&server), &tag("just"), &budget()).await.expect("4 MiB");
    assert_eq!(just.bytes.len() as u64, MAX_MANIFEST);
    let (code, text) = told(registry.manifest(&app(&server), &tag("over"), &budget()).await);
    assert_eq!(code, Code::BudgetExceeded, "{text}");
}

#[tokio::test]
async fn x_098_bytes_and_requests_of_a_search_are_counted_together() {
    let server = Server::start(|_| Some(ok(BODY))).await;
    let registry = registry(&[&server]);
    let far = Instant::now() + Duration::from_secs(10);
    let by = ManifestRef::Digest(digest(BODY));
    let size = BODY.len() as u64;
    let budget = Budget::new(far, size * 2 + 1, 10);
    assert!(registry.manifest(&app(&server), &by, &budget).await.is_ok());
    assert!(registry.blob(&app(&server), digest(BODY), size, size, &budget).await.is_ok());
    assert_eq!((budget.bytes_left(), budget.requests_left()), (1, 8));
    let (code, text) = told(registry.manifest(&app(&server), &by, &budget).await);
    assert_eq!((code, text.as_str()), (Code::BudgetExceeded, "the bytes for this image are used up"));
    let budget = Budget::new(far, 1 << 20, 1);
    assert!(registry.manifest(&app(&server), &by, &budget).await.is_ok());
    let (code, text) = told(registry.manifest(&app(&server), &by, &budget).await);
    assert_eq!((code, text.as_str()), (Code::BudgetExceeded, "the requests for this image are used up"));
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn x_100_an_encoded_body_is_refused_and_not_decoded() {
    for (encoding, want) in [("gzip", false), ("zstd", false), ("x-canary", false), ("identity", true)] {
        let server = Server::start(move |_| Some(with(ok(BODY), "content-encoding", encoding))).await;
        let result = pull(&registry(&[&server]), &server, digest(BODY)).await;
        assert_eq!(result.is_ok(), want, "{encoding}");
        if !want {
            let failure = result.expect_err("encoded");
            assert!(matches!(failure, Failure::Unavailable { transient: false, .. }), "{failure}");
            assert!(failure.to_string().contains(&format!("encoded as {encoding}")), "{failure}");
            assert_eq!(server.seen().len(), 1, "not tried again");
        }
    }
}

/// So many pieces of so many bytes, without a length.
fn chunks(count: usize, size: usize) -> impl futures::Stream<Item = Result<Vec<u8>, std::io::Error>> {
    futures::stream::iter((0..count).map(move |_| Ok(vec![b'x'; size])))
}

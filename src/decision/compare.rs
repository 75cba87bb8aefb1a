//! What an UPDATE leaves as it was (C-37). It must never mark an image whose text, list or name differs.

use super::review::ReviewedImage;

/// Marks each image of a pod that stands, with equal text, in the same list under the same name in the old pod.
pub fn mark_unchanged_in_pod(new: &mut [ReviewedImage], old: &[ReviewedImage]) {
    use std::collections::HashSet;
    let key = |image: &ReviewedImage| (image.place.holder as u8, image.place.name.clone(), image.text.clone());
    let before: HashSet<_> = old.iter().map(key).collect();
    for image in new {
        image.unchanged = before.contains(&key(image));
    }
}

/// Marks all images of a template, or none: a template counts as unchanged only as a whole, `equal` being whether old and
/// new pod template are equal as JSON.
pub fn mark_unchanged_in_template(new: &mut [ReviewedImage], equal: bool) {
    for image in new {
        image.unchanged = equal;
    }
}

#[cfg(test)]
mod tests {
    use super::super::review::{Holder, Place};
    use super::*;

    fn image(holder: Holder, name: &str, text: &str) -> ReviewedImage {
        ReviewedImage {
            place: Place { path: name.to_owned(), holder, name: name.to_owned() },
            text: text.to_owned(),
            unchanged: false,
        }
    }

    #[test]
    fn x_009_swapped_images_are_changed() {
        use Holder::{Container, InitContainer};
        for (name, old, new, want) in [
            ("same", vec![image(Container, "a", "x")], image(Container, "a", "x"), true),
            ("other text", vec![image(Container, "a", "x")], image(Container, "a", "y"), false),
            ("other list", vec![image(InitContainer, "a", "x")], image(Container, "a", "x"), false),
            (
                "swapped",
                vec![image(Container, "a", "x"), image(Container, "b", "y")],
                image(Container, "a", "y"),
                false,
            ),
            ("new container", vec![image(Container, "a", "x")], image(Container, "b", "x"), false),
            ("nothing old", vec![], image(Container, "a", "x"), false),
        ] {
            let mut images = [new];
            mark_unchanged_in_pod(&mut images, &old);
            assert_eq!(images[0].unchanged, want, "{name}");
        }
    }
}

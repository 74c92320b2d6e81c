"""Images of VIs: a root file system of few files, built from Debian's packages and ours.

- `recipe`         what goes in and what an image is named by; pure
- `debian`         Debian's packages: fetched and verified by debootstrap, the needed ones chosen
- `requirements`   Python packages for the image's Python, by whatever index pip is configured with
- `assembly`       the root file system, and the tarball of it
- `store`          images and parts on disk: whole or not there, one builder at a time
- `build`          one build from end to end

Few files and small: each container gets ids of its own, and LXD gives every file to them.
Needs root. Source: docs/decisions/0013-cloudlet.md.
"""

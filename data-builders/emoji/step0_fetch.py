"""Download the pinned npm and Debian packages into the cache and unpack them (nothing is installed)."""

import hashlib
import tarfile
from pathlib import Path

from common import CACHE, DEBIAN, NPM, run

SHA256 = {
    "lobehub-fluent-emoji-3d-1.1.0.tgz": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "iconify-json-fluent-emoji-flat-1.2.6.tgz": "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    "fonts-noto-color-emoji_2.042-0+deb12u1_all.deb": "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",  # noqa: E501
    "unicode-cldr-core_41-0.1_all.deb": "35d30d5d3bee4d8244e95236259c4c2a0db06e21bad696515751fcfeee4d0260",
    "unicode-data_15.0.0-1_all.deb": "5efef23bbb1c6a133ecbdd63a2cfa07159ccacf5466a49e2426101c5ecd691fc",
}


def check(archive: Path) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256[archive.name]:
        raise ValueError(f"{archive.name} is not the file from which this data set was built: sha256 {found}")


def main() -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    for package, version in NPM.items():
        stem = f"{package.removeprefix('@').replace('/', '-')}-{version}"
        archive = CACHE / f"{stem}.tgz"
        if not archive.exists():
            run("npm", "pack", f"{package}@{version}", cwd=CACHE)
        check(archive)
        target = CACHE / "npm" / stem
        if not target.exists():
            with tarfile.open(archive) as tar:
                tar.extractall(target / "raw", filter="data")
            for item in (target / "raw" / "package").iterdir():
                item.rename(target / item.name)
    for package, version in DEBIAN.items():
        archive = CACHE / f"{package}_{version}_all.deb"
        if not archive.exists():
            run("apt-get", "download", f"{package}={version}", cwd=CACHE)
        check(archive)
        run("dpkg-deb", "-x", archive.name, "deb", cwd=CACHE)


if __name__ == "__main__":
    main()

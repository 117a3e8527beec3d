#!/usr/bin/env bash
# Opens a pull request with images.lock.json, whose digests `nix run .#pod` takes.
set -euo pipefail

if git diff --quiet -- images.lock.json && git ls-files --error-unmatch images.lock.json >/dev/null 2>&1; then
  echo "images.lock.json is as it was"
  exit 0
fi
# A run that is started again has the same number.
branch="digests-${GITHUB_RUN_ID}-${GITHUB_RUN_ATTEMPT}"
git config user.name "github-actions[bot]"
git config user.email "41898282+github-actions[bot]@users.noreply.github.com"
git switch --create "$branch"
git add images.lock.json
git commit --message "Digests of the images pushed by run ${GITHUB_RUN_ID}"
git -c credential.helper='!gh auth git-credential' push origin "$branch"
if ! gh pr create --head "$branch" --title "Digests of pushed images" --body "Pushed by run ${GITHUB_RUN_ID}; merge to have new pods use them."; then
  echo "The digests are in branch $branch: open a pull request from it. To have that done: Settings, Actions, General," \
    "\"Allow GitHub Actions to create and approve pull requests\"." >&2
  exit 1
fi

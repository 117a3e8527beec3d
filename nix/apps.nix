# What `nix run` offers: the host's command on the checkout that it is called in.
{
  # The flake's own source.
  self,
}:
let
  app = name: {
    type = "app";
    program = "${self}/nix/apps/${name}";
  };
in
{
  inspect = app "inspect";
  load = app "load";
  push = app "push";
  reproduce = app "reproduce";
  sbom = app "sbom";
}

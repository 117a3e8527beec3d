# A build plugin as a derivation: one module of python/hearmeman_build/plugins, run by the buildroot's python.
#
# It is plain `derivation` and uses nothing of nixpkgs, so its output path is the same in both worlds.
{
  system,
  # The fixed-output tree that holds ld.so, python3.11 and zstd.
  buildroot,
}:
let
  shared = "${buildroot}/usr/lib/x86_64-linux-gnu";

  # One source per plugin: an edit to another plugin does not rebuild this one's layers.
  source =
    module: needs:
    let
      package = toString ../python/hearmeman_build;
      wanted =
        map (name: "${package}/${name}.py") [ "__init__" "errors" ]
        ++ map (name: "${package}/plugins/${name}.py") ([ "__init__" "plugin" module ] ++ needs);
      folders = [ package "${package}/plugins" ];
    in
    builtins.path {
      path = ../python;
      name = "plugin-${module}";
      filter =
        path: type: builtins.elem (toString path) (if type == "directory" then folders else wanted);
    };
in
{
  # The derivation's name.
  name,
  # The module to run, and the other plugin modules that it imports.
  module,
  needs ? [ ],
  # Wheels that the modules import from.
  libraries ? [ ],
  # What the plugin reads from its structured attributes.
  arguments,
}:
derivation (
  {
    inherit
      name
      system
      buildroot
      libraries
      ;
    __structuredAttrs = true;
    builder = "${shared}/ld-linux-x86-64.so.2";
    args = [
      "--library-path"
      shared
      "${buildroot}/usr/bin/python3.11"
      # Isolated, without site and without writing bytecode into the store.
      "-I"
      "-S"
      "-B"
      "-X"
      "utf8"
      "-c"
      "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_module(sys.argv[2], run_name='__main__')"
      (source module needs)
      "hearmeman_build.plugins.${module}"
    ];
  }
  // arguments
)

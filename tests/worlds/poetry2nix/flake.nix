# Only so that it can stand where the input stands.
{
  outputs = { self }: { };
}

// TOML that would have ended the program, and what looks like it but is none of it.
#include "train/toml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "message_of.h"

namespace bp::train {
namespace {

using ::testing::HasSubstr;

std::string repeated(std::string_view what, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += what;
  return all;
}

TEST(Toml, RefusesWhatItsParserWouldDieOf) {
  const std::string deep = "a" + repeated(".a", 300'000);
  for (const std::string& text : {deep + " = 1", "[" + deep + "]", "\nx = { " + deep + " = 1 }"})
    EXPECT_THAT(error_of([&] { parse_toml(text, "net.toml"); }), HasSubstr("a key has more than 16 parts"));
  EXPECT_THAT(error_of([&] { parse_toml("x = 1\n" + deep + "=1", "net.toml"); }), HasSubstr("config: net.toml:2: "));
  EXPECT_THAT(error_of([&] { parse_toml("x = " + repeated("[", 300'000), "net.toml"); }), HasSubstr("not TOML"));
  for (const char* text : {"[#a]", "[,a]", "[[,a]]", "[\n]"})
    EXPECT_THAT(error_of([&] { parse_toml(text, "net.toml"); }), HasSubstr("net.toml:1:")) << text;
  Node root;
  EXPECT_THAT(error_of([&] { override_key(root, deep + "=1"); }), HasSubstr("a key has more than 16 parts"));
}

TEST(Toml, TheDeepestTreeReadsBackAsItIsWritten) {
  const auto nested = [](int lists) { return "x = " + repeated("[", lists) + "1" + repeated("]", lists); };
  for (const std::string& text : {nested(47), "x = { a" + repeated(".a", 15) + " = " + nested(30).substr(4) + " }"}) {
    const std::string written = to_toml(parse_toml(text, "net.toml"));
    EXPECT_EQ(to_toml(parse_toml(written, "written.toml")), written);
  }
  for (const std::string& text :
       {nested(48), "x = " + repeated("{ a" + repeated(".a", 15) + " = ", 60) + "1" + repeated(" }", 60)})
    EXPECT_THAT(error_of([&] { parse_toml(text, "net.toml"); }),
                HasSubstr("net.toml:1: more than 48 tables and lists"));
}

TEST(Toml, LettersOutsideOfStringsAreRefused) {
  EXPECT_THAT(error_of([] { parse_toml("x = 1\n\u03e4 = 2", "net.toml"); }), HasSubstr("net.toml:2:1: not TOML"));
  EXPECT_EQ(parse_toml("x = \"\"\"a\\\n \u03e4\"\"\"", "net.toml").find("x")->text, "a\u03e4");
}

TEST(Toml, DotsOutsideOfKeysAreNotParts) {
  const std::string dots = repeated(".", 40);
  const Node root =
      parse_toml("a = \"" + dots + "\\\"" + dots + "\" # " + dots + "\nb = '''" + dots + "\n'" + dots + "''''\n'" +
                     dots + "' = [" + repeated("1.5, ", 20) + "]\nc = \"\"\"" + dots + "\"\"\"\"\"\n",
                 "net.toml");
  EXPECT_EQ(root.entries.size(), 4u);
}

}  // namespace
}  // namespace bp::train

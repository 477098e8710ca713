// Calls operators in a process of its own, as under an emulator of another processor: it reads calls from its input and
// writes what they return. A call is a length and a name, a number of arrays, and for each its number of dimensions and
// its sizes, all int64; then the values of all arrays but the last, float32. The answer is an int64 and the last array.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <dlfcn.h>

namespace {

void read_all(void* data, size_t bytes) {
  if (bytes > 0 && std::fread(data, 1, bytes, stdin) != bytes) std::exit(0);  // nobody calls any more
}

int64_t read_number() {
  int64_t number;
  read_all(&number, sizeof(number));
  return number;
}

}  // namespace

int main() {
  using Operator = int (*)(int, void**, int*, int64_t**, const char**, void*, void*);
  while (true) {
    std::string name(read_number(), ' ');
    read_all(&name[0], name.size());
    const int64_t count = read_number();
    std::vector<std::vector<int64_t>> sizes(count);
    std::vector<std::vector<float>> arrays(count);
    std::vector<int> dimensions;
    std::vector<int64_t*> shapes;
    std::vector<void*> data;
    for (int64_t index = 0; index < count; index++) {
      sizes[index].resize(read_number());
      int64_t length = 1;
      for (int64_t& size : sizes[index]) length *= size = read_number();
      arrays[index].assign(length, NAN);
    }
    for (int64_t index = 0; index < count; index++) {
      if (index + 1 < count) read_all(arrays[index].data(), arrays[index].size() * sizeof(float));
      dimensions.push_back(static_cast<int>(sizes[index].size()));
      shapes.push_back(sizes[index].data());
      data.push_back(arrays[index].data());
    }
    void* function = dlsym(RTLD_DEFAULT, name.c_str());
    int64_t answer = -1;
    if (function != nullptr && name == "use_threads") {
      reinterpret_cast<void (*)(int64_t)>(function)(sizes[0][0]);
      answer = 0;
    } else if (function != nullptr) {
      answer = reinterpret_cast<Operator>(function)(static_cast<int>(count), data.data(), dimensions.data(), shapes.data(),
                                                    nullptr, nullptr, nullptr);
    }
    std::fwrite(&answer, sizeof(answer), 1, stdout);
    std::fwrite(arrays.back().data(), sizeof(float), arrays.back().size(), stdout);
    std::fflush(stdout);
  }
}

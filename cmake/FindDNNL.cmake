# Finds oneDNN as the target DNNL::dnnl. Debian's own dnnl-config.cmake demands OpenCL, which the CPU engine never
# loads; so the library and its header are looked for directly. Used by the build and by the installed bpConfig.cmake.
find_path(DNNL_INCLUDE_DIR NAMES dnnl.hpp PATH_SUFFIXES oneapi/dnnl)
find_library(DNNL_LIBRARY NAMES dnnl)

if(DNNL_INCLUDE_DIR)
  # 2.x keeps dnnl_version.h at the top, 3.x too (as a forwarder to oneapi/dnnl/).
  foreach(header oneapi/dnnl/dnnl_version.h dnnl_version.h)
    if(EXISTS ${DNNL_INCLUDE_DIR}/${header})
      file(STRINGS ${DNNL_INCLUDE_DIR}/${header} lines REGEX "#define DNNL_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
      if(lines)
        string(REGEX REPLACE "[^0-9;]+" "" numbers "${lines}")
        string(REPLACE ";" "." DNNL_VERSION "${numbers}")
        break()
      endif()
    endif()
  endforeach()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(DNNL REQUIRED_VARS DNNL_LIBRARY DNNL_INCLUDE_DIR VERSION_VAR DNNL_VERSION)
mark_as_advanced(DNNL_INCLUDE_DIR DNNL_LIBRARY)

if(DNNL_FOUND AND NOT TARGET DNNL::dnnl)
  add_library(DNNL::dnnl UNKNOWN IMPORTED)
  set_target_properties(DNNL::dnnl PROPERTIES IMPORTED_LOCATION "${DNNL_LIBRARY}"
                                              INTERFACE_INCLUDE_DIRECTORIES "${DNNL_INCLUDE_DIR}")
endif()
